"""The clients of Debian's next release: newer Docker, containerd, podman, and oras."""

from pathlib import Path

import pytest

from lab.clients.client import Login
from lab.clients.counting import content_gets
from lab.clients.fixtures import StartClient, reference
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]

NEWER = ("skopeo", "podman", "dockerd", "dockerd-containerd-store", "containerd", "cri", "buildah", "oras")


@pytest.mark.parametrize("kind", NEWER)
def test_cold_warm_and_without_registry_or_proxy(
    lab: Lab, proxy: Proxy, start_client: StartClient, build_image: MakeImage, newer: Path, kind: str
) -> None:
    """Cold, all comes from the registry once; warm and in an outage, none; without the proxy it is a clean failure."""
    image = build_image(architectures=("amd64", "arm64"))
    lab.push(image, f"library/newer-{kind}")
    wanted, log = reference(lab.hub, f"library/newer-{kind}"), lab.hub.log.mark()

    def pull() -> None:
        client = start_client(kind, proxy, root=newer)
        pulled = client.pull(wanted)
        assert pulled.returncode == 0, pulled.stderr
        client.check(wanted, image)

    pull()
    assert set(content_gets(log).values()) == {1}
    pull()
    assert set(content_gets(log).values()) == {1}
    with lab.hub.stopped():
        pull()
    client = start_client(kind, proxy, root=newer)
    proxy.stop()
    failed = client.pull(wanted)
    assert failed.returncode != 0
    assert "connection refused" in failed.stderr + failed.stdout


@pytest.mark.parametrize("kind", [kind for kind in NEWER if kind not in {"containerd", "cri"}])
def test_logins(
    lab: Lab,
    proxy: Proxy,
    start_client: StartClient,
    build_image: MakeImage,
    newer: Path,
    right: Login,
    wrong: Login,
    kind: str,
) -> None:
    """A wrong login is refused, a right one is confirmed and opens a private image."""
    image = build_image()
    lab.push(image, f"private/newer-{kind}")
    wanted, client = reference(lab.hub, f"private/newer-{kind}"), start_client(kind, proxy, root=newer)
    confirmed = [client.login("docker.io", login) for login in (wrong, right)]
    assert [done is not None and done.returncode == 0 for done in confirmed] == [False, True]
    pulled = client.pull(wanted)
    assert pulled.returncode == 0, pulled.stderr
    client.check(wanted, image)
