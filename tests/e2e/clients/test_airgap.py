"""Images that were imported are pulled by container runtimes while no registry answers."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.test_admin_command import run
from lab.clients.fixtures import StartClient, reference
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.clients]


@pytest.mark.parametrize(
    "kind",
    [
        "podman",
        pytest.param("dockerd", marks=pytest.mark.slow),
        pytest.param("containerd", marks=pytest.mark.slow),
        pytest.param("cri", marks=pytest.mark.slow),
    ],
)
def test_an_imported_image_is_pulled_in_an_outage(
    lab: Lab, start_proxy: StartProxy, start_client: StartClient, build_image: MakeImage, tmp_path: Path, kind: str
) -> None:
    """By its tag, from a proxy that has never reached a registry; a name of Docker Hub's as people write it."""
    image = build_image(architectures=("amd64", "arm64"))
    name = f"library/gap-{kind}"
    lab.push(image, name)
    pulled_from = reference(lab.hub, name)
    run(start_proxy(), "export", pulled_from, "-o", str(tmp_path / "out.tar"), "--fetch")
    there = start_proxy()

    with ExitStack() as cleanup:
        for server in (lab.hub, lab.auth):
            cleanup.callback(server.start)
            server.stop()
        run(there, "import", str(tmp_path / "out.tar"))
        client = start_client(kind, there)
        pulled = client.pull(pulled_from)
        assert pulled.returncode == 0, pulled.stderr
        client.check(pulled_from, image)
