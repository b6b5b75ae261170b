"""docs/deploy/compose.yaml, started as it is; what a test adds is an upstream registry that it can reach."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.compose import Compose, build_registry
from container.conftest import BASE, ROOT
from lab.addresses import Address
from lab.image import make_image
from lab.lab import Lab
from lab.podman import Podman
from lab.programs import find_program
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.container

ADDRESS = Address("127.0.0.1", 3128)
ADDITION = """\
services:
  registry-proxy:
    environment:
      UPSTREAM_CA_FILE: /lab/{ca_name}
    volumes: ["{pki}:/lab:ro"]
"""
REGISTRY_CONFIGURATION = """\
version: 0.1
http:
  addr: :443
  tls: {{certificate: /lab/{certificate_name}, key: /lab/{key_name}}}
storage:
  filesystem: {{rootdirectory: /var/lib/registry}}
"""


@pytest.fixture
def compose(podman: Podman, image: str, lab: Lab, tmp_path: Path) -> Iterator[Compose]:
    """Start the file with the image that was built, and yield the project; it can reach one registry."""
    pki, names = lab.pki.ca_file.parent, {"ca_name": lab.pki.ca_file.name}
    addition, configuration = tmp_path / "addition.yaml", tmp_path / "config.yml"
    addition.write_text(ADDITION.format(pki=pki, **names))
    pair = {"certificate_name": lab.pki.certificate_file.name, "key_name": lab.pki.key_file.name}
    configuration.write_text(REGISTRY_CONFIGURATION.format(**pair))
    settings = {"REGISTRY_PROXY_IMAGE": image, "REGISTRIES": "noauth.lab.test"}
    project = Compose(podman, ROOT / "docs/deploy/compose.yaml", settings, addition)
    project.run("up", "--detach")
    podman.start(
        build_registry(podman, BASE, tmp_path / "registry-image"),
        *("--network=deploy_default", "--network-alias=noauth.lab.test", f"--volume={pki}:/lab:ro"),
        f"--volume={lab.storage.directory}:/var/lib/registry:ro",
        f"--volume={configuration}:/etc/docker/registry/config.yml:ro",
    )
    yield project
    project.run("down", "--volumes")


def test_a_pull_through_the_service(compose: Compose, lab: Lab, tmp_path: Path) -> None:
    """The service is ready, an image comes through it, and it is as closed as the file says."""
    made = make_image(tmp_path / "made", seed="compose")
    lab.push(made, "team/app")
    proxy = compose.container("registry-proxy").wait_ready(ADDRESS)
    (tmp_path / "ca.crt").write_text(proxy.execute("cat", "/ca/ca.crt"))
    Skopeo(tmp_path / "skopeo", tmp_path / "ca.crt", ADDRESS).pull(
        "noauth.lab.test/team/app:latest", tmp_path / "pulled"
    )

    pulled = set(hash_files(tmp_path / "pulled").values())
    assert {digest.removeprefix("sha256:") for digest in (made.digest, *made.blobs)} <= pulled
    told = proxy.inspect()
    assert told["HostConfig"]["ReadonlyRootfs"] is True
    assert told["EffectiveCaps"] in (None, [])
    assert proxy.execute("id", "-u").strip() == "1000"
    assert '"upstream_cache_status":"MISS"' in proxy.log


@pytest.mark.parametrize("name", ["compose.yaml", "office/compose.yaml"])
def test_docker_compose_accepts_the_file(own_network: None, name: str) -> None:
    """Docker's own program knows every key; there is no Docker here to start it with."""
    assert own_network is None
    command = [find_program("docker-compose"), "--file", str(ROOT / "docs/deploy" / name), "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
