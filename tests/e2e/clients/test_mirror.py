"""Real clients that have the proxy as their mirror: they pull through it, and past it when it cannot serve them.

Past it they reach the registries by a proxy that only tunnels, as they would by the network.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from lab.addresses import Address
from lab.clients.cell import MACHINE, why_not
from lab.clients.client import Client, Door, Expected, Way
from lab.clients.counting import content_gets
from lab.clients.dockerd import DockerClient
from lab.clients.fixtures import StartClient, reference
from lab.clients.kinds import KINDS
from lab.fixtures import MakeImage, StartProxy
from lab.image import Image
from lab.lab import Lab
from lab.proxy import Proxy
from lab.tunnel import BlindProxy

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

KINDS_WITH_MIRRORS = (
    "containerd",
    "dockerd",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("podman", "skopeo", "buildah")),
)
LIMIT_S = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorFirst(Way):
    """The mirror door, and the registries themselves behind it."""

    upstream: Address

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead to the registries; a mirror without TLS is not asked through `HTTPS_PROXY`."""
        return {"HTTPS_PROXY": f"http://{self.upstream}"}


class Mirrored(Protocol):
    """Starts a client that has a proxy as its mirror."""

    def __call__(self, kind: str, proxy: Proxy, root: Path = MACHINE) -> Client:
        """Return it, with an empty storage."""
        ...


@pytest.fixture
def mirrored(lab: Lab, blind_proxy: BlindProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    """Yield what starts clients that have a proxy as their mirror."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as cleanup:

        def start_one(kind: str, proxy: Proxy, root: Path = MACHINE) -> Client:
            way = MirrorFirst(proxy.address, (lab.pki.ca_file,), Door.MIRROR, upstream=blind_proxy.address)
            # a short path: daemons have sockets in it
            client = KINDS[kind](tmp_path_factory.mktemp("c") / kind, way, root)
            cleanup.callback(client.close)
            return client

        yield start_one


def pull(client: Client, name: str, image: Image) -> None:
    """Pull an image of Docker Hub and look at it."""
    pulled = client.pull(name)
    assert pulled.returncode == 0, pulled.stderr
    client.check(name, image)


@pytest.mark.parametrize("kind", KINDS_WITH_MIRRORS)
def test_all_comes_through_the_mirror(
    lab: Lab,
    proxy: Proxy,
    mirrored: Mirrored,
    start_client: StartClient,
    blind_proxy: BlindProxy,
    build_image: MakeImage,
    kind: str,
) -> None:
    """Cold, warm, and once more through the proxy door: the registry gives each manifest and blob once."""
    image, name = build_image(architectures=("amd64", "arm64")), f"library/mirrored-{kind}"
    lab.push(image, name)
    log, full_name = lab.hub.log.mark(), reference(lab.hub, name)
    for _ in ("cold", "warm"):
        pull(mirrored(kind, proxy), full_name, image)
    pull(start_client(kind, proxy), full_name, image)
    gets = content_gets(log)
    assert set(gets.values()) == {1}
    assert Expected.of(image).blobs <= {path.rpartition("/")[2] for path in gets}
    assert blind_proxy.connects == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["containerd", "dockerd", "podman", "skopeo"])
def test_newer_clients_do_the_same(
    lab: Lab, proxy: Proxy, mirrored: Mirrored, blind_proxy: BlindProxy, build_image: MakeImage, newer: Path, kind: str
) -> None:
    """Those of Debian's next release."""
    image, name = build_image(), f"library/newer-{kind}"
    lab.push(image, name)
    pull(mirrored(kind, proxy, newer), reference(lab.hub, name), image)
    assert blind_proxy.connects == []
    proxy.stop()
    pull(mirrored(kind, proxy, newer), reference(lab.hub, name), image)


@pytest.mark.slow
def test_buildkit_has_dockers_mirror(
    lab: Lab, proxy: Proxy, mirrored: Mirrored, blind_proxy: BlindProxy, build_image: MakeImage, newer: Path
) -> None:
    """`docker build` asks with `ns`, and is asked for no login."""
    lab.push(build_image(), "library/base")
    client = mirrored("dockerd", proxy, newer)
    assert isinstance(client, DockerClient)
    built = client.build(reference(lab.hub, "library/base"))
    assert built.returncode == 0, built.stderr
    assert blind_proxy.connects == []
    assert '"uri":"/v2/library/base/manifests/latest"' in proxy.log


@pytest.mark.parametrize("kind", KINDS_WITH_MIRRORS)
def test_without_the_proxy_it_goes_on_to_the_registry(
    lab: Lab, start_proxy: StartProxy, mirrored: Mirrored, build_image: MakeImage, kind: str
) -> None:
    """At once: a port that nobody listens at says so."""
    image, name = build_image(), f"library/gone-{kind}"
    lab.push(image, name)
    pull(mirrored(kind, start_proxy(start=False)), reference(lab.hub, name), image)


@pytest.mark.parametrize("kind", ["containerd", pytest.param("podman", marks=pytest.mark.slow)])
def test_when_a_hanging_proxy_ends_it_goes_on(
    lab: Lab, start_proxy: StartProxy, mirrored: Mirrored, build_image: MakeImage, kind: str
) -> None:
    """These have no limit for an answer: a proxy that does not answer is to be ended by who watches over it."""
    image, name = build_image(), f"library/hanging-{kind}"
    lab.push(image, name)
    proxy = start_proxy()
    client = mirrored(kind, proxy)
    for pid in proxy.pids():
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as executor:
        try:
            pulling = executor.submit(pull, client, reference(lab.hub, name), image)
            wait_until(lambda: has_unread(proxy.address), "a request that nobody reads")
            assert not pulling.done()
        finally:
            proxy.kill()
        pulling.result(LIMIT_S)


@pytest.mark.slow
def test_docker_goes_on_by_itself(
    lab: Lab, start_proxy: StartProxy, mirrored: Mirrored, build_image: MakeImage
) -> None:
    """After the 15 s that it gives a mirror's first answer."""
    image, name = build_image(), "library/hanging-dockerd"
    lab.push(image, name)
    proxy = start_proxy()
    client = mirrored("dockerd", proxy)
    for pid in proxy.pids():
        os.kill(pid, signal.SIGSTOP)
    try:
        pull(client, reference(lab.hub, name), image)
    finally:
        proxy.kill()


def has_unread(address: Address) -> bool:
    """Whether a connection to a local port holds bytes that its program has not read (proc_net_tcp(5), rx_queue)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) == address.port and state == "01" and int(queues.partition(":")[2], 16):
            return True
    return False


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Return when something is so; AssertionError when it does not come in time."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)
