"""Nodes that know two replicas: containerd goes on with the other one when one goes in the middle of its pulls."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.clients.cell import why_not
from lab.clients.client import Door, Way
from lab.clients.containerd import ContainerdClient
from lab.fixtures import MakeImage, StartProxy
from lab.image import Image
from lab.lab import Lab
from lab.proxy import Proxy
from lab.seaweed import Seaweed

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]

REGISTRY = "noauth.lab.test"
HOSTS_FILE = f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml"
IMAGES = 4
LAYER_BYTES = 4_000_000
RATE_BYTES_PER_S = 1_000_000
LIMIT_S = 60.0

type Node = Callable[[Proxy, Proxy], ContainerdClient]


@pytest.fixture
def node(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Yield what starts a node that knows two replicas and no other way to a registry."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as cleanup:

        def start_one(first: Proxy, second: Proxy) -> ContainerdClient:
            hosts = "\n".join(
                f'[host."http://{proxy.address}"]\ncapabilities = ["pull", "resolve"]\ndial_timeout = "1s"'
                for proxy in (first, second)
            )
            way = Way(first.address, (lab.pki.ca_file,), Door.MIRROR, files={HOSTS_FILE: hosts + "\n"})
            client = ContainerdClient(tmp_path_factory.mktemp("c") / "containerd", way)
            cleanup.callback(client.close)
            return client

        yield start_one


@pytest.fixture
def replicas(start_proxy: StartProxy, tmp_path: Path) -> Iterator[tuple[Proxy, Proxy]]:
    """Start two proxies that share a bucket."""
    with Seaweed(tmp_path / "weed") as weed:
        settings = {"ENABLE_MANIFEST_CACHE": "true", **weed.settings("shared")}
        yield start_proxy(settings), start_proxy(settings)


def is_downloading(proxy: Proxy) -> bool:
    """Whether something has begun to arrive."""
    return any(path.suffix == "" for path in (proxy.cache_directory / "partial").iterdir())


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_no_pull_is_lost_when_one_of_two_goes(
    lab: Lab, replicas: tuple[Proxy, Proxy], node: Node, build_image: MakeImage, end: str
) -> None:
    """Each replica goes once and comes back, while images are pulled that nobody had: all of them arrive."""
    client = node(*replicas)
    for gone, number in zip(replicas, range(2), strict=True):
        images: dict[str, Image] = {}
        for of_round in range(IMAGES):
            image = build_image(f"{end} {number} {of_round}", layer_bytes=LAYER_BYTES)
            name = f"replicas/{end}-{number}-{of_round}"
            lab.push(image, name)
            images[f"{REGISTRY}/{name}:latest"] = image
        with lab.noauth.throttled(RATE_BYTES_PER_S), ThreadPoolExecutor(IMAGES) as threads:
            pulls = {reference: threads.submit(client.pull, reference) for reference in images}
            deadline_s = time.monotonic() + LIMIT_S
            while number == 0 and not is_downloading(gone):
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            getattr(gone, end)()
            for reference, image in images.items():
                pulled = pulls[reference].result()
                assert pulled.returncode == 0, pulled.stderr
                client.check(reference, image)
        gone.start()
