"""A P2P mirror before the proxy: containerd asks the peers, and the proxy for what no peer has.

The hosts.toml is the one of docs/scaling.md, which is what Spegel writes for `additionalMirrorTargets`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.addresses import Address, free_port
from lab.clients.cell import why_not
from lab.clients.client import Door, Way
from lab.clients.containerd import ContainerdClient
from lab.fixtures import MakeImage, StartProxy
from lab.image import Image
from lab.lab import Lab
from lab.peer_mirror import PeerMirror
from lab.proxy import Proxy
from lab.proxy_log import access_log

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

REGISTRY = "noauth.lab.test"
PAGE = Path(__file__).parents[3] / "docs/scaling.md"

type Pull = Callable[[Address, Image, str], Proxy]


def documented_hosts(peers: Address, proxy: Address) -> str:
    """Return the page's hosts.toml with the addresses and the registry of this test."""
    (block,) = re.findall(r"```toml\n(server = .*?)```", PAGE.read_text(), re.DOTALL)
    text = str(block).replace("http://192.0.2.10:30020", f"http://{peers}")
    text = text.replace("http://registry-proxy.example:3128", f"http://{proxy}")
    text = text.replace("https://registry-1.docker.io", f"https://{REGISTRY}")
    assert text.count(str(peers)) == text.count(str(proxy)) == 1, f"the page has another form: {block}"
    return text


@pytest.fixture
def pull(lab: Lab, start_proxy: StartProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pull]:
    """Yield what pulls an image with a new containerd that knows peers, then a new proxy, and no other way."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as cleanup:

        def pull_one(peers: Address, image: Image, name: str) -> Proxy:
            lab.push(image, name)
            proxy = start_proxy()
            files = {f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml": documented_hosts(peers, proxy.address)}
            way = Way(proxy.address, (lab.pki.ca_file,), Door.MIRROR, files=files)
            client = ContainerdClient(tmp_path_factory.mktemp("c") / "containerd", way)
            cleanup.callback(client.close)
            pulled = client.pull(f"{REGISTRY}/{name}:latest")
            assert pulled.returncode == 0, pulled.stderr
            client.check(f"{REGISTRY}/{name}:latest", image)
            return proxy

        yield pull_one


def asked_of(proxy: Proxy) -> Mapping[str, str]:
    """Return the digests and tags that a proxy was asked for by GET, and what it answered."""
    return {line["uri"].rpartition("/")[2]: line["status"] for line in access_log(proxy) if line["method"] == "GET"}


def test_peers_that_have_nothing_are_asked_first_and_the_proxy_serves(pull: Pull, build_image: MakeImage) -> None:
    """As in a cluster where nobody has the image yet: 404, and on to the proxy, for each part of it."""
    image = build_image("peers have nothing")
    address = Address("127.0.0.1", free_port())
    with PeerMirror(address, {}) as peers:
        proxy = pull(address, image, "peers/nothing")

    assert {status for _, status in peers.answered} == {404}
    assert set(image.layers) <= {wanted for wanted, _ in peers.answered}
    assert set(image.layers) <= asked_of(proxy).keys()


def test_a_layer_that_a_peer_has_is_not_asked_of_the_proxy(pull: Pull, build_image: MakeImage) -> None:
    """The other layers are."""
    image = build_image("peers have one layer")
    held, *others = image.layers
    address = Address("127.0.0.1", free_port())
    with PeerMirror(address, {held: image.read(held)}) as peers:
        proxy = pull(address, image, "peers/one-layer")

    assert (held, 200) in peers.answered
    assert held not in asked_of(proxy)
    assert others
    assert set(others) <= asked_of(proxy).keys()


def test_a_node_without_its_mirror_pulls_through_the_proxy(pull: Pull, build_image: MakeImage) -> None:
    """Spegel restarts, or is not on this node yet: nobody listens on its port."""
    image = build_image("no peers")

    proxy = pull(Address("127.0.0.1", free_port()), image, "peers/none")

    assert set(image.layers) <= asked_of(proxy).keys()
