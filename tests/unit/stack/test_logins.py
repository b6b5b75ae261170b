"""How the stack logs in: which requests do it, what `/v2/` is answered, and what goes through."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.oci import names
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import parse_endpoint
from regproxy.stack.auth_injector import AuthInjector
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, exchange_of
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.passed_reads import PassedReads, repository_read
from regproxy.stack.ping import OPENED_S, RegistryPing
from unit.stack.conftest import Configure
from unit.stack.registry import OCI, Registry

ALICE = "Basic " + base64.b64encode(b"alice:secret").decode()
BLOB_PATH = f"/v2/a/blobs/{Digest.of(b'x')}"
NOBODYS = "Bearer e30.e30.c2ln"
"""A JSON web token without any claim."""

type Ask = Callable[..., http.HTTPFlow]


@dataclass
class TokenServer:
    """Gives `alice` tokens that the registry takes."""

    port: int = 0
    asked: list[str | None] = field(default_factory=list)
    """Authorization of each request."""
    status: int = 200

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        shown = request.headers.get("Authorization")
        self.asked.append(shown)
        if shown is not None and self.status != 200:
            return web.Response(status=self.status)
        kind = "nobodys" if shown is None else "alices"
        return web.Response(text=json.dumps({"token": f"{kind}-{request.query.get('scope', '')}"}))


@pytest.fixture
async def token_server(registry: Registry) -> AsyncIterator[TokenServer]:
    """Start a token server, and let the registry want its tokens."""
    server = TokenServer()
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    challenge = {"WWW-Authenticate": f'Bearer realm="http://localhost:{server.port}/token"'}

    async def guard(request: web.BaseRequest) -> web.StreamResponse | None:
        shown = request.headers.get("Authorization", "")
        if request.path == "/v2/":
            return web.Response() if shown.startswith("Bearer ") else web.Response(status=401, headers=challenge)
        return (
            None if shown.startswith("Bearer alices-repository:a:pull") else web.Response(status=401, headers=challenge)
        )

    registry.override = guard
    yield server
    await runner.cleanup()


@pytest.fixture
def login(registry: Registry) -> dict[str, str]:
    """Return the settings of an operator with a login for the registry, who trusts the token server's name."""
    return {
        "AUTH_REGISTRIES": f"{registry.name}|alice|secret",
        "AUTH_REGISTRY_DELIMITER": "|",
        "TRUSTED_HOSTS": "localhost",
    }


async def ping(pinger: RegistryPing, core: Core, ask: Ask, **fields: str) -> int:
    flow = ask(core, "/v2/", **fields)
    await pinger.request(flow)
    assert flow.response is not None
    return int(flow.response.status_code)


class TestPing:
    async def test_it_is_open_where_the_operators_login_opens_it(
        self, configure: Configure, ask: Ask, registry: Registry, token_server: TokenServer, login: dict[str, str]
    ) -> None:
        """Asked once, it stands without a question to anybody."""
        core = configure(**login)
        pinger = RegistryPing(core)

        assert await ping(pinger, core, ask) == 200
        known = pinger.warm(exchange_registry(core, ask))
        assert known is not None
        assert known.status == 200
        assert token_server.asked == [ALICE]
        assert len(registry.take_asked()) == 2

    async def test_an_opened_registry_stays_open_for_an_hour_unless_the_login_is_refused(
        self,
        configure: Configure,
        ask: Ask,
        token_server: TokenServer,
        login: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The clients' own logins count then."""
        del token_server
        core = configure(**login)
        pinger = RegistryPing(core)
        await ping(pinger, core, ask)
        registry = exchange_registry(core, ask)
        (credential,) = core.settings.credentials

        now_s = pinger._known[registry].until_s - OPENED_S
        for passed_s, is_known in ((OPENED_S - 1, True), (OPENED_S + 1, False)):
            with monkeypatch.context() as later:
                later.setattr("regproxy.stack.ping.time.monotonic", lambda at_s=now_s + passed_s: at_s)
                assert (pinger.warm(registry) is not None) is is_known
        core.upstream.logins.rest(credential, "a test")
        assert pinger.warm(registry) is None
        assert await ping(pinger, core, ask) == 401

    @pytest.mark.parametrize(
        ("settings", "asked"),
        [({"ALLOW_PUSH": "true"}, []), ({"AUTH_REGISTRIES": ""}, []), ({"AUTH_REGISTRIES": "both"}, [])],
        ids=["push", "no login", "a login for the token server"],
    )
    async def test_it_is_the_challenge_where_clients_can_live_with_it(
        self,
        configure: Configure,
        ask: Ask,
        registry: Registry,
        token_server: TokenServer,
        login: dict[str, str],
        settings: dict[str, str],
        asked: list[str],
    ) -> None:
        """So that their own logins work."""
        both = {"AUTH_REGISTRIES": f"{registry.name}|alice|secret localhost:{token_server.port}|alice|secret"}
        core = configure(**login | (both if settings.get("AUTH_REGISTRIES") == "both" else settings))
        pinger = RegistryPing(core)

        assert [await ping(pinger, core, ask) for _ in range(2)] == [401, 401]
        assert token_server.asked == asked

    async def test_a_refused_login_does_not_open_it(
        self, configure: Configure, ask: Ask, token_server: TokenServer, login: dict[str, str]
    ) -> None:
        """Though the registry takes anybody's token for a ping."""
        core = configure(**login)
        token_server.status = 401

        assert await ping(RegistryPing(core), core, ask) == 401
        assert token_server.asked[0] == ALICE

    async def test_a_clients_login_is_the_registrys_to_judge(
        self, configure: Configure, ask: Ask, registry: Registry, token_server: TokenServer, login: dict[str, str]
    ) -> None:
        """Also a token of nobody's."""
        core = configure(**login)
        pinger = RegistryPing(core)
        await ping(pinger, core, ask)
        token_server.asked.clear()

        assert await ping(pinger, core, ask, Authorization=ALICE) == 401
        assert await ping(pinger, core, ask, Authorization=NOBODYS) == 200
        assert token_server.asked == []
        assert registry.authorizations[-2:] == [ALICE, NOBODYS]


def exchange_registry(core: Core, ask: Ask) -> names.Registry:
    exchange = exchange_of(ask(core, "/v2/"))
    assert exchange is not None
    return exchange.registry


class TestReads:
    async def test_a_token_of_nobodys_gives_way_to_the_operators_login(
        self, configure: Configure, ask: Ask, registry: Registry, token_server: TokenServer, login: dict[str, str]
    ) -> None:
        """Where there is one; an opaque token counts as nobody's when it has been refused."""
        registry.tag("b", b"{}", name="a")
        with_login, without = configure(**login), configure(**login | {"AUTH_REGISTRIES": ""})
        statuses = []
        for core in (with_login, without):
            for own in (NOBODYS, "Bearer opaque"):
                flow = ask(core, "/v2/a/manifests/b", Accept=OCI, Authorization=own)
                await ManifestCache(core).request(flow)
                assert flow.response is not None
                statuses.append(flow.response.status_code)

        assert statuses == [200, 200, 401, 401]
        assert token_server.asked[0] == ALICE

    @pytest.mark.parametrize(
        ("method", "path", "name"),
        [
            ("HEAD", BLOB_PATH, "a"),
            ("GET", "/v2/a/tags/list", "a"),
            ("GET", f"/v2/a/referrers/{Digest.of(b'x')}", "a"),
            ("GET", "/v2/a/manifests/b", "a"),
            ("PUT", "/v2/a/manifests/b", None),
            ("GET", "/v2/_catalog", None),
            ("GET", "/v2/", None),
            ("GET", "/token", None),
            ("GET", "/v1/x", None),
            ("GET", "/v2/a/blobs/uploads/1", None),
        ],
    )
    def test_what_reads_from_a_repository(self, method: str, path: str, name: str | None) -> None:
        """Only that may show a pull's token."""
        assert repository_read(method, parse_endpoint(method, path)) == name

    async def test_what_goes_through_shows_a_token_once_the_registry_wants_one(
        self, configure: Configure, ask: Ask, token_server: TokenServer, login: dict[str, str]
    ) -> None:
        """Before that the password, as ever; the client's own login always."""
        core = configure(**login)
        reads = PassedReads(core)
        shown = []
        for fields in ({}, {}, {"Authorization": "Bearer own"}):
            flow = ask(core, BLOB_PATH, **fields)
            exchange = exchange_of(flow)
            assert exchange is not None
            exchange.cache_status = CacheStatus.BYPASS
            await reads.request(flow)
            assert flow.response is None
            shown.append(flow.request.headers["authorization"])
            if token_server.asked == []:
                await ping(RegistryPing(core), core, ask)

        assert shown == [ALICE, "Bearer alices-repository:a:pull", "Bearer own"]

    @pytest.mark.parametrize(
        ("path", "status", "rests"),
        [("/token", 401, True), ("/token", 403, False), ("/v2/a/tags/list", 401, False), ("/token", 200, False)],
    )
    async def test_a_password_that_a_token_server_refuses_is_not_added_again(
        self, configure: Configure, ask: Ask, login: dict[str, str], *, path: str, status: int, rests: bool
    ) -> None:
        """A client's own token request, to which it was added."""
        core = configure(**login)
        flow = ask(core, path)
        assert flow.request.headers["authorization"] == ALICE
        flow.response = http.Response.make(status)

        AuthInjector(core).responseheaders(flow)

        assert ("authorization" not in ask(core, path).request.headers) is rests
