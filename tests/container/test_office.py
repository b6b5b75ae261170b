"""docs/deploy/office: push, pull, delete and garbage collection, with a certificate of the proxy's CA."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.compose import Compose, build_registry
from container.conftest import BASE, ROOT
from lab.addresses import Address
from lab.http_client import Client, ProxyRoute
from lab.image import Image, make_image
from lab.podman import Container, Podman
from lab.skopeo import Skopeo

pytestmark = pytest.mark.container

OFFICE = ROOT / "docs/deploy/office"
ADDRESS = Address("127.0.0.1", 3128)
NAME = "team/app"


class Office:
    """The running project, and a host of the office that uses it."""

    def __init__(self, project: Compose, directory: Path) -> None:
        self.project = project
        self.proxy = project.container("registry-proxy").wait_ready(ADDRESS)
        self.ca_file = directory / "ca.crt"
        self.ca_file.write_text(self.proxy.execute("cat", "/ca/ca.crt"))
        self.skopeo = Skopeo(directory / "skopeo", self.ca_file, ADDRESS)
        self.client = Client(ProxyRoute(ADDRESS, self.ca_file))

    @property
    def registry(self) -> Container:
        """The container of the registry."""
        return self.project.container("registry.local")

    def script(self, name: str, *arguments: str) -> str:
        """Run a script of the recipe and return what it prints."""
        environment = {**self.project.environment, "COMPOSE": self.project.command}
        completed = subprocess.run(
            [OFFICE / name, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    def stored_blobs(self) -> set[str]:
        """Return the digests whose bytes the registry has on its disk."""
        listed = self.registry.execute("find", "/var/lib/registry/docker/registry/v2/blobs", "-name", "data")
        return {f"sha256:{Path(line).parent.name}" for line in listed.split()}


@pytest.fixture
def office(podman: Podman, image: str, tmp_path: Path) -> Iterator[Office]:
    """Start the recipe; podman-compose 1.0 does not wait for the certificate, so that is run first."""
    registry = build_registry(podman, BASE, tmp_path / "registry-image")
    settings = {"REGISTRY_PROXY_IMAGE": image, "REGISTRY_IMAGE": registry}
    project = Compose(podman, OFFICE / "compose.yaml", settings)
    assert "wrote /certificates/registry.local.crt" in project.run("run", "--rm", "--no-deps", "certificate")
    project.run("up", "--detach")
    yield Office(project, tmp_path)
    project.run("down", "--volumes")


@pytest.fixture
def made(tmp_path: Path) -> Image:
    """Return an image that no registry has."""
    return make_image(tmp_path / "made", seed="office")


def test_an_image_is_pushed_pulled_deleted_and_its_space_is_free(office: Office, made: Image, tmp_path: Path) -> None:
    """Through the proxy all the way; what was deleted through the proxy is not to be had from its cache either."""
    digest = office.skopeo.push(made, f"registry.local/{NAME}:1.4")
    assert digest == made.digest
    office.skopeo.pull(f"registry.local/{NAME}:1.4", tmp_path / "by-tag")
    assert {*made.blobs, made.digest} <= office.stored_blobs()

    assert office.script("delete-image.sh", NAME, "1.4") == f"deleted {NAME}@{digest}\n"
    assert set(made.blobs) <= office.stored_blobs(), "the blobs are there until the garbage is collected"
    office.script("collect-garbage.sh")
    assert office.stored_blobs().isdisjoint({*made.blobs, made.digest})

    assert office.client.get(f"https://registry.local/v2/{NAME}/manifests/1.4").status == 404
    assert office.client.get(f"https://registry.local/v2/{NAME}/manifests/{digest}").status == 404


def test_the_registry_serves_again_after_the_collection(office: Office, made: Image, tmp_path: Path) -> None:
    """What a tag still names survives, and new images can be pushed."""
    office.skopeo.push(made, f"registry.local/{NAME}:kept")
    office.script("collect-garbage.sh")

    assert set(made.blobs) <= office.stored_blobs()
    other = make_image(tmp_path / "other", seed="another")
    office.skopeo.push(other, f"registry.local/{NAME}:new")
    office.skopeo.pull(f"registry.local/{NAME}:new", tmp_path / "new")


def test_the_certificate_is_kept_and_the_cas_key_is_not_shown(office: Office) -> None:
    """The recipe's monthly command changes nothing that is good, and the registry has nothing of /ca."""
    assert "kept /certificates/registry.local.crt" in office.project.run("run", "--rm", "--no-deps", "certificate")
    listed = office.registry.execute("ls", "/certificates").split()
    assert sorted(listed) == ["registry.local.crt", "registry.local.key"]
    assert "No such file" in office.registry.execute("sh", "-c", "ls /ca 2>&1 || true")
