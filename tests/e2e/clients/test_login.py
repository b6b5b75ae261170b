"""Clients with logins of their own: the right one opens, a wrong one is refused and never confirmed."""

import pytest

from lab.clients.client import Client, Login
from lab.clients.counting import content_gets
from lab.clients.fixtures import CLIENTS, LOGIN_CLIENTS, StartClient, StartShared, reference
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME, Registry

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

REGISTRIES = ("token", pytest.param("basic", marks=pytest.mark.slow), pytest.param("hub", marks=pytest.mark.slow))


def host(registry: Registry) -> str:
    return reference(registry, "").partition("/")[0]


def confirmed(client: Client, registry: Registry, login: Login) -> bool | None:
    """Return whether the client's login command says that the login is right, None when it has no such command."""
    done = client.login(host(registry), login)
    return None if done is None else done.returncode == 0


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("registry_name", REGISTRIES)
def test_a_clients_own_login_opens_private_images(
    lab: Lab,
    open_proxy: Proxy,
    start_client: StartClient,
    build_image: MakeImage,
    right: Login,
    kind: str,
    registry_name: str,
) -> None:
    """The login command succeeds and the pull after it too; a second client with that login is served warm."""
    image = build_image()
    registry: Registry = getattr(lab, registry_name)
    private = reference(registry, f"private/own-{kind}-{registry_name}")
    lab.push(image, f"private/own-{kind}-{registry_name}")
    log = registry.log.mark()
    for _ in ("cold", "warm"):
        client = start_client(kind, open_proxy)
        assert confirmed(client, registry, right) is not False
        pulled = client.pull(private)
        assert pulled.returncode == 0, pulled.stderr
        client.check(private, image)
        assert set(content_gets(log).values()) == {1}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("registry_name", REGISTRIES)
def test_others_do_not_get_what_a_login_has_opened(
    lab: Lab,
    open_proxy: Proxy,
    start_client: StartClient,
    build_image: MakeImage,
    right: Login,
    wrong: Login,
    kind: str,
    registry_name: str,
) -> None:
    """Cold and warm: nothing for a client with a wrong login or none, and no login command says that it is right."""
    registry: Registry = getattr(lab, registry_name)
    private = reference(registry, f"private/others-{kind}-{registry_name}")
    lab.push(build_image(), f"private/others-{kind}-{registry_name}")
    for _ in ("cold", "warm"):
        stranger = start_client(kind, open_proxy)
        assert stranger.pull(private).returncode != 0
        assert confirmed(stranger, registry, wrong) is not True
        refused = stranger.pull(private, wrong)
        assert refused.returncode != 0
        assert "not-the-password" not in refused.stderr + refused.stdout
        # warms it for the second round
        assert start_client(kind, open_proxy).pull(private, right).returncode == 0


@pytest.fixture(scope="module")
def operator_proxy(lab: Lab, start_shared: StartShared) -> Proxy:
    """Start a proxy that has logins of its own for Docker Hub and a registry that wants Basic, both there already."""
    for registry in (lab.hub, lab.basic):
        registry.start()
    pair = f"{USERNAME}:{PASSWORD}"
    return start_shared({"AUTH_REGISTRIES": f"basic.lab.test:{pair} docker.io:{pair}"})


@pytest.mark.parametrize("kind", LOGIN_CLIENTS)
@pytest.mark.parametrize(
    "registry_name",
    [
        "hub",
        pytest.param(
            "basic",
            marks=pytest.mark.xfail(
                strict=False, reason="issue 5 item 3: the operator's Basic login answers the /v2/ of a login command"
            ),
        ),
    ],
)
def test_a_wrong_login_is_refused_where_the_operator_has_one(
    lab: Lab,
    operator_proxy: Proxy,
    start_client: StartClient,
    right: Login,
    wrong: Login,
    kind: str,
    registry_name: str,
) -> None:
    """`docker login` with a wrong password is an error also where the operator's login opens the registry."""
    registry: Registry = getattr(lab, registry_name)
    client = start_client(kind, operator_proxy)
    assert confirmed(client, registry, wrong) is False
    assert confirmed(client, registry, right) is True
