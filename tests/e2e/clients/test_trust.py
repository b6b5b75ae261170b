"""Where each client looks for our CA when it is not in the system's trust store: what set-up has to know."""

import pytest

from lab.clients.cell import why_not
from lab.clients.client import Way
from lab.clients.fixtures import reference
from lab.clients.kinds import KINDS
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]


@pytest.mark.parametrize("kind", ["skopeo", "podman", "buildah", "dockerd"])
@pytest.mark.parametrize(
    ("registry_name", "folder", "trusting"),
    [
        ("hub", "/etc/containers/certs.d/docker.io", {"skopeo", "podman", "buildah"}),
        ("hub", "/etc/containers/certs.d/registry-1.docker.io", set()),
        ("hub", "/etc/docker/certs.d/docker.io", {"skopeo", "podman", "buildah"}),
        ("hub", "/etc/docker/certs.d/registry-1.docker.io", set()),
        ("noauth", "/etc/containers/certs.d/noauth.lab.test", {"skopeo", "podman", "buildah"}),
        ("noauth", "/etc/docker/certs.d/noauth.lab.test", {"skopeo", "podman", "buildah", "dockerd"}),
    ],
)
def test_a_ca_in_certs_d(
    lab: Lab,
    open_proxy: Proxy,
    build_image: MakeImage,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    registry_name: str,
    folder: str,
    trusting: set[str],
) -> None:
    """A pull succeeds where the client takes the CA of that folder, and is an error of the certificate elsewhere."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    registry = getattr(lab, registry_name)
    lab.push(build_image(), "library/trust")
    way = Way(open_proxy.address, (), files={f"{folder}/ca.crt": open_proxy.ca_file.read_text()})
    client = KINDS[kind](tmp_path_factory.mktemp("c") / kind, way)
    try:
        pulled = client.pull(reference(registry, "library/trust"))
    finally:
        client.close()
    assert (pulled.returncode == 0, "x509" in pulled.stderr) == (kind in trusting, kind not in trusting)
