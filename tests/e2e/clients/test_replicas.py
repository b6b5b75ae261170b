"""Nodes that know two replicas: containerd goes on with the other one when one goes in the middle of its pulls."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from lab.clients.cell import why_not
from lab.clients.client import Door, Way
from lab.clients.containerd import ContainerdClient
from lab.fixtures import MakeImage, StartProxy
from lab.image import Image
from lab.lab import Lab
from lab.newer import VERSION, newer_version
from lab.proxy import Proxy
from lab.seaweed import Seaweed

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]

REGISTRY = "noauth.lab.test"
HOSTS_FILE = f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml"
IMAGES = 4
LAYER_BYTES = 4_000_000
RATE_BYTES_PER_S = 1_000_000
LIMIT_S = 60.0


class Node(Protocol):
    """What starts a node."""

    def __call__(self, first: Proxy, second: Proxy, *, goes_on_to_registry: bool = False) -> ContainerdClient:
        """Start one that knows two replicas; without more, no other way to a registry."""
        ...


@pytest.fixture
def node(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Yield what starts a node that knows two replicas and no other way to a registry."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as cleanup:

        def start_one(first: Proxy, second: Proxy, *, goes_on_to_registry: bool = False) -> ContainerdClient:
            assert lab.noauth
            host, port = lab.noauth.address
            server = f'server = "https://{REGISTRY}:{port}"\n\n' if goes_on_to_registry else ""
            names = {"/etc/hosts": f"{host} {REGISTRY}\n"} if goes_on_to_registry else {}
            hosts = server + "\n".join(
                f'[host."http://{proxy.address}"]\ncapabilities = ["pull", "resolve"]\ndial_timeout = "1s"'
                for proxy in (first, second)
            )
            way = Way(first.address, (lab.pki.ca_file,), Door.MIRROR, files={HOSTS_FILE: hosts + "\n", **names})
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


@pytest.mark.parametrize("end", ["kill", "stop", "update"])
def test_no_pull_is_lost_when_one_of_two_goes(
    lab: Lab, replicas: tuple[Proxy, Proxy], node: Node, build_image: MakeImage, tmp_path: Path, end: str
) -> None:
    """Each replica goes once and comes back, while images are pulled that nobody had: all of them arrive.

    In an update it comes back at once, as a newer version.
    """
    client = node(*replicas)
    newer = newer_version(tmp_path) if end == "update" else None
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
            getattr(gone, "kill" if end == "kill" else "stop")()
            if newer is not None:
                gone.command = newer
                gone.start()
            for reference, image in images.items():
                pulled = pulls[reference].result()
                assert pulled.returncode == 0, pulled.stderr
                client.check(reference, image)
        if newer is None:
            gone.start()
        assert (VERSION in gone.log) is (newer is not None)


def test_the_registry_itself_comes_last(
    lab: Lab, replicas: tuple[Proxy, Proxy], node: Node, build_image: MakeImage
) -> None:
    """Where `server` names it: a replica is asked as long as there is one, and pulls go on when both are away."""
    client = node(*replicas, goes_on_to_registry=True)
    for number, away in enumerate((None, *replicas)):
        if away is not None:
            away.stop()
        image = build_image(str(number))
        name = f"replicas/last-{number}"
        lab.push(image, name)
        pulled = client.pull(f"{REGISTRY}/{name}:latest")
        assert pulled.returncode == 0, pulled.stderr
        client.check(f"{REGISTRY}/{name}:latest", image)
        logs = "".join(replica.log for replica in replicas)
        asked = {digest in logs for digest in image.blobs}
        assert asked == {number < len(replicas)}
