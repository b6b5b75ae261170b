"""Every real client pulls: cold from the registry, once; warm without spending a pull; never something else."""

import pytest

from lab.clients.client import Expected
from lab.clients.counting import blob_gets, content_gets
from lab.clients.fixtures import CLIENTS, StartClient, StartShared, reference
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME, Registry

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

OPERATOR = {
    "AUTH_REGISTRIES": f"basic.lab.test:{USERNAME}:{PASSWORD} token.lab.test:{USERNAME}:{PASSWORD}"
    f" docker.io:{USERNAME}:{PASSWORD}",
}


@pytest.fixture(scope="module")
def operator_proxy(start_shared: StartShared) -> Proxy:
    """Start a proxy that has logins for the registries."""
    return start_shared(OPERATOR)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "registry_name",
    ["hub", pytest.param("noauth", marks=pytest.mark.slow), pytest.param("redirect", marks=pytest.mark.slow)],
)
def test_a_public_image_is_fetched_once(
    lab: Lab, open_proxy: Proxy, start_client: StartClient, build_image: MakeImage, kind: str, registry_name: str
) -> None:
    """Cold, each manifest and blob comes from the registry exactly once; warm, none; the content is always right."""
    image = build_image(architectures=("amd64", "arm64"))
    registry: Registry = getattr(lab, registry_name)
    name = f"library/{registry_name}-{kind}"
    lab.push(image, name)
    log = registry.log.mark()
    for _ in ("cold", "warm"):
        client = start_client(kind, open_proxy)
        pulled = client.pull(reference(registry, name))
        assert pulled.returncode == 0, pulled.stderr
        client.check(reference(registry, name), image)
        assert set(content_gets(log).values()) == {1}
        assert blob_gets(log).keys() == Expected.of(image).blobs


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "registry_name",
    ["token", pytest.param("basic", marks=pytest.mark.slow), pytest.param("hub", marks=pytest.mark.slow)],
)
def test_the_operators_login_is_enough(
    lab: Lab, operator_proxy: Proxy, start_client: StartClient, build_image: MakeImage, kind: str, registry_name: str
) -> None:
    """A client that knows nothing of any login pulls a private image, cold and warm."""
    image = build_image()
    registry: Registry = getattr(lab, registry_name)
    name = f"private/operator-{kind}"
    lab.push(image, name)
    log = registry.log.mark()
    for _ in ("cold", "warm"):
        client = start_client(kind, operator_proxy)
        pulled = client.pull(reference(registry, name))
        assert pulled.returncode == 0, pulled.stderr
        client.check(reference(registry, name), image)
        assert set(content_gets(log).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_tag_that_has_moved_is_followed(
    lab: Lab, open_proxy: Proxy, start_client: StartClient, build_image: MakeImage, kind: str
) -> None:
    """A warm tag is asked for by HEAD, so the next pull has the new image, and fetches only what is new."""
    name, client = f"moved/{kind}", start_client(kind, open_proxy)
    for seed in ("before", "after"):
        image = build_image(seed)
        lab.push(image, name)
        log = lab.noauth.log.mark()
        pulled = client.pull(reference(lab.noauth, name))
        assert pulled.returncode == 0, pulled.stderr
        client.check(reference(lab.noauth, name), image)
        assert blob_gets(log).keys() == Expected.of(image).blobs


@pytest.mark.parametrize(
    "kinds",
    [("skopeo", "dockerd", "containerd"), pytest.param(("podman", "buildah"), marks=pytest.mark.slow)],
    ids=["at once", "after tries"],
)
def test_without_the_proxy_a_pull_fails_cleanly(
    lab: Lab, start_proxy: StartProxy, start_client: StartClient, build_image: MakeImage, kinds: tuple[str, ...]
) -> None:
    """With the proxy gone a client says that it cannot connect, and goes on working when the proxy is back."""
    image = build_image()
    lab.push(image, "gone/image")
    proxy, gone = start_proxy(), reference(lab.noauth, "gone/image")
    clients = [start_client(kind, proxy) for kind in kinds]
    proxy.stop()
    for client in clients:
        failed = client.pull(gone)
        assert failed.returncode != 0
        assert "connection refused" in failed.stderr + failed.stdout
    proxy.start()
    for client in clients:
        assert client.pull(gone).returncode == 0
        client.check(gone, image)
