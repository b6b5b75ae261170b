"""What `/v2/` is answered while the registry gives no answer: what it said last, and no password is confirmed."""

import base64

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.stack.core import Core
from regproxy.stack.ping import RegistryPing
from unit.stack.registry import Override, Registry, hang_up
from unit.stack.test_manifests import Ask, cache_status

OTHER_REALM = "https://tokens.example/token"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()


def saying(status: int, challenge: str | None = None) -> Override:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={} if challenge is None else {"WWW-Authenticate": challenge})

    return answer


class Pinger:
    """Asks one `RegistryPing`."""

    def __init__(self, core: Core, ask: Ask, registry: Registry) -> None:
        self._core = core
        self._ask = ask
        self._ping = RegistryPing(core)
        self.registry = registry

    async def ping(self, authorization: str | None = None) -> http.HTTPFlow:
        """Send one ping. Who asks is found out before, as `auth_injector` does."""
        if authorization is not None:
            await self._core.identities.of(authorization)
        fields = {} if authorization is None else {"Authorization": authorization}
        flow = self._ask(self._core, "/v2/", **fields)
        await self._ping.request(flow)
        assert flow.response is not None
        return flow

    async def status(self, authorization: str | None = None) -> int:
        """Send one ping; returns its status."""
        response = (await self.ping(authorization)).response
        assert response is not None
        return response.status_code


@pytest.fixture
def pinger(core: Core, ask: Ask, registry: Registry) -> Pinger:
    return Pinger(core, ask, registry)


async def test_of_a_registry_that_nobody_has_asked_it_is_200(pinger: Pinger) -> None:
    """The pull goes on from the cache."""
    pinger.registry.override = hang_up
    assert await pinger.status() == 200


async def test_a_challenge_that_can_be_answered_is_kept(pinger: Pinger) -> None:
    """`docker login` would take 200 for a yes; who pulls gets a token from us."""
    challenge = f'Bearer realm="http://{pinger.registry.name}/token",service="registry.test"'
    pinger.registry.override = saying(401, challenge)
    assert await pinger.status() == 401
    pinger.registry.override = hang_up
    kept = await pinger.ping()
    assert kept.response is not None
    assert (kept.response.status_code, kept.response.headers["www-authenticate"]) == (401, challenge)
    assert cache_status(kept) == "STALE"


async def test_a_challenge_of_a_token_server_that_is_not_intercepted_is_not(pinger: Pinger) -> None:
    """Nobody here could answer for it."""
    pinger.registry.override = saying(401, f'Bearer realm="{OTHER_REALM}",service="registry.test"')
    assert await pinger.status() == 401
    pinger.registry.override = hang_up
    assert await pinger.status() == 200


async def test_a_registry_that_wants_passwords_goes_on_wanting_them(pinger: Pinger) -> None:
    """A client without one could not have pulled before."""
    pinger.registry.override = saying(401, 'Basic realm="here"')
    assert await pinger.status() == 401
    pinger.registry.override = hang_up
    assert await pinger.status() == 401


async def test_what_was_open_stays_open(pinger: Pinger) -> None:
    """The last word counts, not the first."""
    pinger.registry.override = saying(401, 'Basic realm="here"')
    assert await pinger.status() == 401
    pinger.registry.override = saying(200)
    assert await pinger.status() == 200
    pinger.registry.override = hang_up
    assert await pinger.status() == 200


async def test_a_token_is_no_password(pinger: Pinger) -> None:
    """It was given for one; an old one must not stop a pull."""
    pinger.registry.override = hang_up
    assert await pinger.status("Bearer expired") == 200


async def test_a_password_is_good_if_it_was_taken_before(pinger: Pinger) -> None:
    """This very one, by this very registry."""
    pinger.registry.override = saying(200)
    assert await pinger.status(basic("right")) == 200
    pinger.registry.override = hang_up
    assert await pinger.status(basic("right")) == 200
    assert await pinger.status(basic("wrong")) == 503


async def test_a_password_that_was_refused_last_time_is_not(pinger: Pinger) -> None:
    """It has been changed since it was right."""
    pinger.registry.override = saying(200)
    assert await pinger.status(basic("old")) == 200
    pinger.registry.override = saying(401, 'Basic realm="here"')
    assert await pinger.status(basic("old")) == 401
    pinger.registry.override = hang_up
    assert await pinger.status(basic("old")) == 503
