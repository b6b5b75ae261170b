"""Fixtures of the tests on real parts: images, scripted origins, proxies, and the client without our proxy.

Everything that a test starts through them is stopped when the test ends, also when it fails. The printed text of a
failed test's proxies is in its report.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import error_pages
from lab.image import Image, make_image
from lab.lab import Lab
from lab.origin import Origin
from lab.own_pages import own_pages
from lab.proxy import Proxy
from lab.secrets import files_with_secrets, secrets_in
from lab.skopeo import Skopeo
from lab.tunnel import BlindProxy


@contextmanager
def starting(lab: Lab, directory: Path) -> Iterator[StartProxy]:
    """Yield what starts proxies below a directory, each with an empty cache and a CA of its own."""
    proxies: list[Proxy] = []

    def start_one(settings: Mapping[str, str] | None = None, *, start: bool = True) -> Proxy:
        proxy = lab.proxy(directory / f"proxy-{len(proxies)}", settings)
        proxies.append(proxy)
        return proxy.start() if start else proxy

    yield start_one
    said = [(path, page) for started in proxies for path, page in own_pages(started)]
    for started in proxies:
        started.close()
        sys.stdout.write(started.log)
    # Whatever the tests were about: nothing that came or went may be found in what is left behind.
    left = [f"its log: {found}" for started in proxies if (found := secrets_in(started.log.encode()))]
    left += files_with_secrets(started.cache_directory for started in proxies)
    left += [f"an error page: {found}" for page in error_pages if (found := secrets_in(page))]
    left += [f"its page {path}: {found}" for path, page in said if (found := secrets_in(page))]
    error_pages.clear()
    assert left == []


@pytest.fixture
def start_proxy(lab: Lab, tmp_path: Path) -> Iterator[StartProxy]:
    """Yield what starts proxies for this test."""
    with starting(lab, tmp_path) as start_one:
        yield start_one


@pytest.fixture(scope="module")
def start_module_proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Yield what starts proxies for all tests of the module, which leave nothing in them that another test minds."""
    with starting(lab, tmp_path_factory.mktemp("module")) as start_one:
        yield start_one


@pytest.fixture
def proxy(start_proxy: StartProxy) -> Proxy:
    """Start a proxy with the lab's settings and an empty cache."""
    return start_proxy()


@pytest.fixture
def build_image(tmp_path: Path, request: pytest.FixtureRequest) -> MakeImage:
    """Return what makes images for this test, as OCI layouts, for `lab.push` or `origin.serve_image`."""
    made: list[Image] = []

    def make_one(
        seed: str = "", *, layers: int = 2, layer_bytes: int = 100_000, architectures: tuple[str, ...] = ("amd64",)
    ) -> Image:
        image = make_image(
            tmp_path / f"image-{len(made)}",
            seed=f"{request.node.nodeid} {seed}",
            layers=layers,
            layer_bytes=layer_bytes,
            architectures=architectures,
        )
        made.append(image)
        return image

    return make_one


@pytest.fixture
def start_origin(lab: Lab) -> Iterator[StartOrigin]:
    """Yield what starts scripted origins for this test, by one of the lab's free names."""
    with ExitStack() as cleanup:
        yield lambda name: cleanup.enter_context(lab.origin(name))


@pytest.fixture
def origin(start_origin: StartOrigin) -> Origin:
    """Start the scripted origin at origin.lab.test, a registry for the proxy."""
    return start_origin("origin.lab.test")


@pytest.fixture
def blind_proxy(lab: Lab) -> Iterator[BlindProxy]:
    """Yield a proxy that only tunnels to the lab."""
    with BlindProxy(lab.addresses) as running:
        yield running


@pytest.fixture
def plain_skopeo(lab: Lab, blind_proxy: BlindProxy, tmp_path: Path) -> Skopeo:
    """Return the client as it works without our proxy: by name, through tunnels."""
    return Skopeo(tmp_path / "plain-skopeo", lab.pki.ca_file, blind_proxy.address)
