"""Building on a base image: what builds pull comes through the cache like any pull."""

from pathlib import Path

import pytest

from lab.clients.buildah import BuildahClient
from lab.clients.cell import MACHINE
from lab.clients.counting import content_gets
from lab.clients.dockerd import DockerClient
from lab.clients.fixtures import StartClient, StartShared, reference
from lab.fixtures import MakeImage
from lab.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]


@pytest.mark.parametrize("release", ["this", "newer"])
@pytest.mark.parametrize("kind", ["dockerd", "buildah"])
def test_a_build_pulls_its_base_once(
    request: pytest.FixtureRequest,
    lab: Lab,
    start_shared: StartShared,
    start_client: StartClient,
    build_image: MakeImage,
    kind: str,
    release: str,
) -> None:
    """`docker build` (BuildKit) and `buildah build`, each twice on new machines: the second asks for nothing."""
    root: Path = MACHINE if release == "this" else request.getfixturevalue("newer")
    name = f"library/build-{kind}-{release}"
    lab.push(build_image(architectures=("amd64", "arm64")), name)
    proxy, log = start_shared(), lab.hub.log.mark()
    for _ in ("cold", "warm"):
        client = start_client(kind, proxy, root=root)
        assert isinstance(client, DockerClient | BuildahClient)
        built = client.build(reference(lab.hub, name))
        assert built.returncode == 0, built.stderr
        assert set(content_gets(log).values()) == {1}
