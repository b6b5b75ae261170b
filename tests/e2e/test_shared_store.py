"""Two proxies and one bucket, on a real S3 engine: what one has pulled the other need not."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from lab.fixtures import MakeImage, StartProxy
from lab.image import MANIFEST, Image
from lab.lab import Lab
from lab.proxy import Proxy
from lab.registry import Registry
from lab.seaweed import SECRET_KEY, Seaweed, names_in
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

REGISTRY = "noauth.lab.test"
STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
CACHED_TAGS = {"ENABLE_MANIFEST_CACHE": "true", "MANIFEST_CACHE_DEFAULT_TIME": "1h"}
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Start one engine for this file; each test has a bucket of its own."""
    with Seaweed(tmp_path_factory.mktemp("weed") / "engine") as running:
        yield running


class Shared:
    """The bucket of one test, and the proxies that share it."""

    def __init__(self, weed: Seaweed, start_proxy: StartProxy, name: str) -> None:
        self.weed, self.name = weed, name
        self.bucket: S3Store = weed.bucket(name)
        self._start_proxy = start_proxy

    def proxy(self, settings: Mapping[str, str] | None = None) -> Proxy:
        """Start one more replica."""
        return self._start_proxy({**CACHED_TAGS, **self.weed.settings(self.name), **(settings or {})})

    def names(self) -> list[str]:
        return names_in(self.bucket)

    def wait_for(self, digests: list[str]) -> None:
        """Wait until these contents can be used by others."""
        wanted = {about(digest) for digest in digests}
        wait_until(lambda: wanted <= set(self.names()))


@pytest.fixture
def shared(weed: Seaweed, start_proxy: StartProxy, request: pytest.FixtureRequest) -> Shared:
    """Return an empty bucket, named after the test."""
    return Shared(weed, start_proxy, f"b{abs(hash(request.node.nodeid)):016x}")


def about(digest: str) -> str:
    return f"cache/about/sha256/{digest[7:9]}/{digest[7:]}"


def content(digest: str) -> str:
    return f"cache/content/sha256/{digest[7:9]}/{digest[7:]}"


def wait_until(holds: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.05)


def pull(proxy: Proxy, lab: Lab, name: str, destination: Path) -> dict[str, str]:
    """Pull by the mirror door, where not even `/v2/` has to be asked for, and return the hashes of what came."""
    skopeo = Skopeo(destination.with_name(f"{destination.name}-home"), lab.pki.ca_file)
    source = f"docker://{proxy.address}/{REGISTRY}/{name}:latest"
    skopeo.run(["copy", "--src-tls-verify=false", source, f"dir:{destination}"])
    return hash_files(destination)


def contents(image: Image) -> list[str]:
    return [*image.manifests, *image.blobs]


class TestOneBucket:
    def test_what_one_has_pulled_the_other_pulls_without_the_registry(
        self, lab: Lab, shared: Shared, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """B has never seen the image and asks its registry for nothing at all; the bytes are the same."""
        image = build_image(layer_bytes=3_000_000)
        lab.push(image, "shared/first")
        first, second = shared.proxy(), shared.proxy()
        by_first = pull(first, lab, "shared/first", tmp_path / "a")
        shared.wait_for(contents(image))
        log = lab.noauth.log.mark()
        by_second = pull(second, lab, "shared/first", tmp_path / "b")

        assert by_first == by_second
        assert log.requests() == []
        assert SECRET_KEY not in first.log + second.log
