"""The small addons before the caches: credentials, writes, the ping; and the requests they lead to."""

import base64
from collections.abc import Callable

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Blob, Manifest
from regproxy.stack import ping
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, exchange_of
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.ping import RegistryPing
from regproxy.stack.push_bypass import PushBypass
from regproxy.stack.upstream_requests import content_request
from unit.stack.conftest import Configure
from unit.stack.registry import OCI, Override, Registry, hang_up, status, stay_silent

ALICE = "Basic " + base64.b64encode(b"alice:secret").decode()
BLOB_PATH = f"/v2/a/blobs/{Digest.of(b'x')}"

type Ask = Callable[..., http.HTTPFlow]


def answered(flow: http.HTTPFlow) -> int | None:
    return None if flow.response is None else int(flow.response.status_code)


class TestCredentials:
    @pytest.mark.parametrize(
        ("own", "sent"), [(None, ALICE), ("", ALICE), ("  ", ALICE), ("Bearer mine", "Bearer mine")]
    )
    async def test_the_clients_own_authorization_wins(
        self, configure: Configure, ask: Ask, registry: Registry, own: str | None, sent: str
    ) -> None:
        """Else the operator's, as Basic."""
        core = configure(AUTH_REGISTRIES=f"{registry.name}|alice|secret", AUTH_REGISTRY_DELIMITER="|")

        flow = ask(core, "/v2/a/manifests/b", **({} if own is None else {"Authorization": own}))

        exchange = exchange_of(flow)
        assert exchange is not None
        assert exchange.authorization == sent
        assert flow.request.headers["authorization"] == sent
        assert "secret" not in repr(exchange)

    async def test_without_credentials_nothing_is_made_up(self, core: Core, ask: Ask) -> None:
        """An anonymous request stays anonymous; what was meant for the proxy stays here."""
        flow = ask(core, "/v2/a/manifests/b", Proxy_Authorization="Basic eDp5")

        assert "authorization" not in flow.request.headers
        assert "proxy-authorization" not in flow.request.headers

    async def test_the_caches_send_what_was_chosen(self, core: Core, ask: Ask) -> None:
        """With every Accept of the client, and no other field of it."""
        flow = ask(core, "/v2/a/manifests/b", Authorization="Bearer mine", Cookie="a=b", User_Agent="skopeo")
        flow.request.headers.add("Accept", "application/x")
        flow.request.headers.add("Accept", "application/y")
        exchange = exchange_of(flow)
        assert exchange is not None
        assert isinstance(exchange.endpoint, Blob | Manifest)

        request = content_request("GET", flow, exchange, exchange.endpoint)

        assert dict(request.headers) == {
            "Accept": "application/x, application/y",
            "Authorization": "Bearer mine",
            "User-Agent": "skopeo",
        }
        assert request.url.target == "/v2/a/manifests/b"
        assert (request.url.scheme, request.url.host) == ("http", "127.0.0.1")


class TestWrites:
    @pytest.mark.parametrize(
        ("method", "path", "allowed", "refused"),
        [
            ("POST", "/v2/a/blobs/uploads/", True, False),
            ("PUT", "/v2/a/manifests/b", True, False),
            ("DELETE", "/v2/a/manifests/b", True, False),
            ("PATCH", "/v2/a/blobs/uploads/1", True, False),
            ("POST", "/v2/a/blobs/uploads/", False, True),
            ("PUT", "/v2/a/manifests/b", False, True),
            ("DELETE", "/v2/a/manifests/b", False, True),
            ("PATCH", "/v2/a/blobs/uploads/1", False, True),
            ("POST", "/token", False, False),
            ("PUT", "/token", False, True),
            ("TRACE", "/v2/a/manifests/b", True, True),
            ("PROPFIND", "/token", True, True),
        ],
    )
    async def test_writes_pass_if_they_are_allowed(
        self, *, configure: Configure, ask: Ask, method: str, path: str, allowed: bool, refused: bool
    ) -> None:
        """They stream through untouched, never cached; a token is asked for by POST in every pull."""
        flow = ask(configure(ALLOW_PUSH=str(allowed).lower()), path, method)
        exchange = exchange_of(flow)

        assert exchange is not None
        assert answered(flow) == (405 if refused else None)
        assert bool(flow.request.stream) is not refused
        assert (exchange.cache_status is CacheStatus.BYPASS) is not refused

    @pytest.mark.parametrize(("allowed", "status"), [("true", CacheStatus.BYPASS), ("false", CacheStatus.NONE)])
    async def test_a_push_asks_the_registry_which_blobs_it_has(
        self, configure: Configure, ask: Ask, allowed: str, status: CacheStatus
    ) -> None:
        """A cached yes would make a broken image; where nobody can push, the cache may answer."""
        exchange = exchange_of(ask(configure(ALLOW_PUSH=allowed), BLOB_PATH, "HEAD"))

        assert exchange is not None
        assert exchange.cache_status is status

    async def test_the_dead_api_is_refused_with_its_likely_cause(
        self, core: Core, ask: Ask, registry: Registry
    ) -> None:
        """Docker falls back to v1 when v2 refused it."""
        flow = ask(core, "/v1/_ping")

        assert answered(flow) == 405
        assert flow.response is not None
        assert registry.name.encode() in (flow.response.raw_content or b"")

    @pytest.mark.parametrize(
        ("method", "code", "forgotten"),
        [("PUT", 201, True), ("DELETE", 202, True), ("PUT", 403, False), ("GET", 200, False)],
    )
    async def test_a_tag_that_was_written_is_forgotten(
        self, *, configure: Configure, ask: Ask, registry: Registry, method: str, code: int, forgotten: bool
    ) -> None:
        """If the registry has taken it."""
        core = configure(ALLOW_PUSH="true", ENABLE_MANIFEST_CACHE="true")
        cache = ManifestCache(core)
        registry.tag("b", b'{"old":1}', name="a")
        await cache.request(ask(core, "/v2/a/manifests/b", Accept=OCI))
        registry.take_asked()
        push = ask(core, "/v2/a/manifests/b", method)
        push.response = http.Response.make(code)

        await PushBypass(core).responseheaders(push)

        await cache.request(ask(core, "/v2/a/manifests/b", Accept=OCI))
        assert bool(registry.take_asked()) is forgotten


class TestPing:
    @staticmethod
    async def ping(core: Core, ask: Ask, method: str = "GET", **fields: str) -> http.HTTPFlow:
        """Send one ping."""
        flow = ask(core, "/v2/", method, **fields)
        await RegistryPing(core).request(flow)
        return flow

    async def meet(self, core: Core, ask: Ask, registry: Registry) -> None:
        """Let the registry answer once."""
        registry.override = status(200)
        assert answered(await self.ping(core, ask)) == 200

    @pytest.mark.parametrize("code", [200, 401, 403, 404])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_the_registrys_answer_is_passed_on(
        self, core: Core, ask: Ask, registry: Registry, code: int, method: str
    ) -> None:
        """With its challenge."""
        registry.override = status(code)

        flow = await self.ping(core, ask, method)

        assert answered(flow) == code
        assert flow.response is not None
        assert "www-authenticate" in flow.response.headers
        assert registry.methods() == [method]

    @pytest.mark.parametrize("outage", [hang_up, status(503), status(429)], ids=["hang up", "503", "429"])
    async def test_an_outage_is_bridged(self, core: Core, ask: Ask, registry: Registry, outage: Override) -> None:
        """Or no pull could come to use the cache."""
        await self.meet(core, ask, registry)
        registry.override = outage

        flow = await self.ping(core, ask)

        assert answered(flow) == 200
        assert flow.response is not None
        assert flow.response.headers["docker-distribution-api-version"] == "registry/2.0"
        exchange = exchange_of(flow)
        assert exchange is not None
        assert (exchange.cache_status, bool(exchange.error)) == (CacheStatus.STALE, True)

    async def test_a_silent_registry_is_not_waited_for(
        self, core: Core, ask: Ask, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with manifests."""
        await self.meet(core, ask, registry)
        monkeypatch.setattr(ping, "REVALIDATION_LIMIT_S", 0.05)
        registry.override = stay_silent

        assert answered(await self.ping(core, ask)) == 200

    async def test_a_password_is_never_taken_for_right_in_an_outage(
        self, core: Core, ask: Ask, registry: Registry
    ) -> None:
        """`docker login` asks with it."""
        registry.override = hang_up

        assert answered(await self.ping(core, ask, Authorization=ALICE)) == 503

    async def test_the_operators_credentials_do_not_keep_an_outage_from_being_bridged(
        self, configure: Configure, ask: Ask, registry: Registry
    ) -> None:
        """Nobody logs in with them: the client brought none."""
        core = configure(AUTH_REGISTRIES=f"{registry.name}|alice|secret", AUTH_REGISTRY_DELIMITER="|")
        await self.meet(core, ask, registry)
        registry.override = hang_up

        assert answered(await self.ping(core, ask)) == 200

    async def test_a_registry_that_answers_a_ping_with_a_flood_is_as_good_as_away(
        self, core: Core, ask: Ask, registry: Registry
    ) -> None:
        """Its answer is not held in memory."""

        async def flood(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=b"x" * 200_000)

        await self.meet(core, ask, registry)
        registry.override = flood

        assert answered(await self.ping(core, ask)) == 200

    async def test_other_requests_are_left_alone(self, core: Core, ask: Ask, registry: Registry) -> None:
        """Also one for a manifest."""
        flow = ask(core, "/v2/a/manifests/b")

        await RegistryPing(core).request(flow)

        assert answered(flow) is None
        assert registry.take_asked() == []
