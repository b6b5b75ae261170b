"""The check of credentials at start: what is said of each, and which login rests afterwards."""

import json

import pytest
from aiohttp import web

from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.resolver import for_inside
from regproxy.policy.credentials import Credential
from regproxy.policy.docker_config import Place
from regproxy.stack.core import Core
from regproxy.stack.credential_check import USER_AGENT, Result, try_credential
from unit.stack.conftest import Configure
from unit.stack.registry import Registry

HOST = "127.0.0.1"


async def check(core: Core, registry: Registry, credential: Credential) -> tuple[Result, bool]:
    """Return the result, and whether the credential rests."""
    place = Place(HOST, registry.port, "")
    result: Result
    try:
        result, _ = await try_credential(place, credential, core.upstream, core.settings.registries)
    except UpstreamUnavailable:
        result = "unreachable"  # as `report_credentials` says it
    return result, core.upstream.logins.is_resting(credential)


def login(registry: Registry, identity_token: str = "") -> Credential:
    password = "" if identity_token else "right"
    return Credential(HOST, registry.port, "alice", password, identity_token=identity_token)


@pytest.mark.parametrize(
    ("without", "with_login", "expected"),
    [
        (401, 200, ("works", False)),
        (401, 401, ("refused", True)),
        (401, 403, ("refused", False)),
        (401, 500, ("unreachable", False)),
        (200, 200, ("not checked", False)),
        (200, 401, ("refused", False)),
        (404, 401, ("refused", False)),
    ],
)
async def test_a_password(
    core: Core, registry: Registry, without: int, with_login: int, expected: tuple[Result, bool]
) -> None:
    """It rests when the registry that asked for it refuses it; what else is at a host says less."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        status = with_login if "Authorization" in request.headers else without
        return web.Response(status=status, headers={"WWW-Authenticate": 'Basic realm="x"'})

    registry.override = answer

    assert await check(core, registry, login(registry)) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, json.dumps({"token": "t"}), ("works", False)),
        (200, "no token", ("unreachable", False)),
        (401, "", ("refused", True)),
        (403, "", ("refused", False)),
        (503, "", ("unreachable", False)),
    ],
)
@pytest.mark.parametrize("identity_token", ["", "refresh"])
async def test_a_login_at_a_token_server(
    core: Core, registry: Registry, status: int, body: str, identity_token: str, expected: tuple[Result, bool]
) -> None:
    """Asked for a token that opens nothing; an identity token is exchanged, too."""
    agents = set()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        agents.add(request.headers.get("User-Agent"))
        if request.path == "/token":
            assert (request.method == "POST") is (identity_token != "")
            return web.Response(status=status, text=body)
        challenge = f'Bearer realm="http://{registry.name}/token",service="x"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry.override = answer
    credential = login(registry, identity_token)

    assert await check(core, registry, credential) == expected
    assert agents == {USER_AGENT}


@pytest.mark.parametrize(
    ("realm", "trusted", "expected"),
    [
        ("http://localhost:{port}/token", "", "not checked"),
        ("http://localhost:{port}/token", "localhost", "works"),
        ("ftp://x/", "", "not checked"),
        ("", "", "not checked"),
    ],
)
async def test_who_may_see_the_password(
    configure: Configure, registry: Registry, realm: str, trusted: str, expected: Result
) -> None:
    """By the rules of the pulls: the registry's own, or whom the operator trusts."""
    core = configure(TRUSTED_HOSTS=trusted)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "t"})
        challenge = f'Bearer realm="{realm.format(port=registry.port)}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry.override = answer

    assert (await check(core, registry, login(registry)))[0] == expected
    assert not for_inside.get()  # the next registry's token server is another question
    assert ("GET", "/token") in registry.asked or expected != "works"


async def test_a_check_is_no_pull(configure: Configure, registry: Registry) -> None:
    """Its token is forgotten: what is remembered of a registry comes from clients' requests."""
    core = configure(AUTH_REGISTRIES=f"{registry.name}|alice|right", AUTH_REGISTRY_DELIMITER="|")

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "t"})
        challenge = f'Bearer realm="http://{registry.name}/token"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry.override = answer
    await check(core, registry, core.settings.credentials[0])
    await check(core, registry, core.settings.credentials[0])

    assert [path for _, path in registry.asked] == ["/v2/", "/token"] * 2
