"""The node script and a real containerd: what it writes is what containerd pulls by, and what it takes back is gone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubernetes.node import Node
from lab.addresses import Address, free_port
from lab.clients.cell import Cell, why_not
from lab.clients.client import Door, Way
from lab.image import Image, make_image
from lab.lab import Lab
from lab.programs import Program, find_program
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

DAEMON = """\
version = 2
root = "{directory}/root"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{directory}/containerd.sock"
"""


class Registry:
    """Debian's docker-registry without TLS, which logs what it is asked."""

    def __init__(self, directory: Path, storage: Path) -> None:
        self.address = Address("127.0.0.1", free_port())
        directory.mkdir()
        configuration = {
            "version": "0.1",
            "log": {"level": "warn"},
            "http": {"addr": str(self.address), "secret": "lab"},
            "storage": {"filesystem": {"rootdirectory": str(storage)}},
        }
        (directory / "registry.json").write_text(json.dumps(configuration))
        command = [find_program("docker-registry"), "serve", str(directory / "registry.json")]
        self.program = Program("registry", command, directory, listens_on=self.address)

    @property
    def asked(self) -> list[str]:
        """The targets of all requests."""
        lines = [line.partition('"GET ')[2] or line.partition('"HEAD ')[2] for line in self._log().splitlines()]
        return [line.split()[0] for line in lines if line]

    def _log(self) -> str:
        return self.program.log_file.read_text()


@pytest.fixture
def image(lab: Lab, tmp_path: Path) -> Image:
    made = make_image(tmp_path / "image", seed="node script")
    lab.push(made, "library/on-nodes")
    return made


@pytest.fixture
def mirror(lab: Lab, image: Image, tmp_path: Path) -> Iterator[Registry]:
    """Start what stands for the proxy's mirror door: it has the image, and asks nobody."""
    assert image.digest
    registry = Registry(tmp_path / "mirror", lab.storage.directory)
    registry.program.start()
    yield registry
    registry.program.stop()


@pytest.fixture
def upstream(lab: Lab, image: Image, tmp_path: Path) -> Iterator[Registry]:
    """Start the registry that the image is from."""
    assert image.digest
    registry = Registry(tmp_path / "upstream", lab.storage.directory)
    registry.program.start()
    yield registry
    registry.program.stop()


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """Start a containerd on a small machine of its own."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("c") / "node"
    with Cell(directory, Way(Address("127.0.0.1", 0), (), Door.MIRROR)) as cell:
        cell.write("/etc/containerd/config.toml", DAEMON.format(directory=directory))
        cell.start("containerd", ["containerd"], directory / "containerd.sock")
        yield cell


@pytest.fixture
def proxy(lab: Lab, image: Image, tmp_path: Path) -> Iterator[Proxy]:
    """Start the proxy itself."""
    assert image.digest
    with lab.proxy(tmp_path / "proxy") as running:
        yield running


@pytest.fixture
def node(machine: Cell, mirror: Registry) -> Node:
    return Node(machine.directory / "containerd", {"PROXY_URL": f"http://{mirror.address}"})


def pull(machine: Cell, node: Node, reference: str) -> str:
    """Pull as containerd is told to by the files of the node; return what it says when it cannot, else nothing."""
    ctr = ["ctr", "--address", f"{machine.directory}/containerd.sock", "images"]
    done = machine.run(*ctr, "pull", "--platform", "linux/amd64", "--hosts-dir", str(node.hosts), reference)
    return "" if done.returncode == 0 else done.stderr


def test_containerd_pulls_through_the_proxy_until_the_pod_goes(machine: Cell, node: Node, mirror: Registry) -> None:
    """An image of Docker Hub comes from the mirror, which is told the registry; afterwards nothing is left of it."""
    before = node.state()
    assert node.run("apply").returncode == 0

    assert pull(machine, node, "docker.io/library/on-nodes:latest") == ""
    manifests = [target for target in mirror.asked if "/manifests/" in target]
    assert manifests[0] == "/v2/library/on-nodes/manifests/latest?ns=docker.io"
    assert all(target.endswith("?ns=docker.io") for target in mirror.asked if target.startswith("/v2/library/"))
    assert any("/blobs/" in target for target in mirror.asked)

    asked = len(mirror.asked)
    assert node.run("restore").returncode == 0
    assert node.state() == before
    assert pull(machine, node, "docker.io/library/on-nodes:latest") != "", "there is no way to Docker Hub from here"
    assert len(mirror.asked) == asked


def test_the_proxy_answers_what_containerd_asks(machine: Cell, node: Node, mirror: Registry, proxy: Proxy) -> None:
    """The mirror door caches it for the registry that is named; the registry needs no way from the node."""
    assert node.run("apply", PROXY_URL=f"http://{proxy.address}", REGISTRIES="noauth.lab.test").returncode == 0

    assert pull(machine, node, "noauth.lab.test/library/on-nodes:latest") == ""
    assert '"proxy_host":"noauth.lab.test"' in proxy.log
    assert mirror.asked == []


def test_without_the_proxy_containerd_goes_to_the_registry(
    machine: Cell, node: Node, mirror: Registry, upstream: Registry
) -> None:
    """With its port closed nothing is lost; with it, the registry is not asked."""
    registry, reference = f"http://{upstream.address}", f"{upstream.address}/library/on-nodes:latest"
    assert node.run("apply", REGISTRIES=registry).returncode == 0
    assert pull(machine, node, reference) == ""
    assert (len(mirror.asked) > 0, upstream.asked) == (True, [])

    mirror.program.stop()
    assert pull(machine, node, reference) == ""
    assert "/v2/library/on-nodes/manifests/latest" in upstream.asked


def test_certificates_of_a_registry_go_on_working(machine: Cell, node: Node, mirror: Registry, lab: Lab) -> None:
    """A folder with a CA is left alone: containerd looks at it only where there is no hosts.toml."""
    host, port = lab.noauth.address
    machine.write("/etc/hosts", f"{host} {lab.noauth.name}\n")
    registry = f"{lab.noauth.name}:{port}"
    reference = f"{registry}/library/on-nodes:latest"
    assert "certificate" in pull(machine, node, reference)
    (node.hosts / registry).mkdir(parents=True)
    (node.hosts / registry / "ca.crt").write_bytes(lab.pki.ca_file.read_bytes())

    assert "left alone" in node.run("apply", REGISTRIES=registry).stdout
    assert pull(machine, node, reference) == ""
    assert mirror.asked == []
