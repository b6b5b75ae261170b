"""What a client gets when its registry has had enough: stored answers at once, and no request that counts."""

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.origin.quota import Quotas
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.ping import RegistryPing
from unit.stack.conftest import Configure
from unit.stack.registry import OCI, Override, Registry

OLD, NEW = b'{"schemaVersion":2,"was":"old"}', b'{"schemaVersion":2,"is":"new, and longer"}'
TAG = "/v2/library/alpine/manifests/3.20"
OWN = "Basic b3duOnA="

type Ask = Callable[..., http.HTTPFlow]


def busy(**fields: str) -> Override:
    """Answer everything with 429."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        headers = {field.replace("_", "-"): value for field, value in fields.items()}
        return web.Response(status=429, text="slow down", headers=headers)

    return answer


class Client:
    """Asks one proxy; tags are revalidated each time."""

    def __init__(self, core: Core, registry: Registry, ask: Ask) -> None:
        self.core = core
        self.clock = SimpleNamespace(now_s=1000.0)
        core.upstream.quotas = Quotas(lambda: self.clock.now_s)
        self._registry = registry
        self._ask = ask
        self._manifests, self._blobs, self._ping = ManifestCache(core), BlobCache(core), RegistryPing(core)

    async def get(self, path: str = TAG, method: str = "GET", **fields: str) -> tuple[int, str, http.Response]:
        """Send one request; returns status, what the cache did, and the response."""
        flow = self._ask(self.core, path, method, Accept=OCI, **fields)
        for addon in (self._ping, self._manifests, self._blobs):
            await addon.request(flow)
        exchange = exchange_of(flow)
        assert exchange is not None
        assert flow.response is not None
        return flow.response.status_code, str(exchange.cache_status), flow.response

    async def status(self, path: str = TAG, method: str = "GET", **fields: str) -> tuple[int, str]:
        """Send one request; returns status and what the cache did."""
        return (await self.get(path, method, **fields))[:2]


@pytest.fixture
async def client(configure: Configure, registry: Registry, ask: Ask) -> Client:
    return Client(configure(), registry, ask)


def quota(registry: Registry, remaining: int, *, hub: bool = True) -> None:
    """Let the registry tell a quota of 100 with every manifest."""
    inner = registry.contents

    async def answer(request: web.BaseRequest) -> web.StreamResponse | None:
        found = inner.get(request.path)
        if found is None:
            return None
        fields = {
            "Content-Type": found[1],
            "Docker-Content-Digest": str(Digest.of(found[0])),
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": f"{remaining};w=21600",
        }
        return web.Response(body=found[0], headers=fields | ({"docker-ratelimit-source": "192.0.2.1"} if hub else {}))

    registry.override = answer


class TestTooManyRequests:
    async def test_with_a_stored_answer_the_client_gets_it_and_the_registry_is_left_alone(
        self, client: Client, registry: Registry
    ) -> None:
        """One 429 is one request, whoever asks how often; then it is asked again."""
        registry.tag("3.20", OLD)
        await client.get()
        registry.take_asked()
        registry.override = busy(Retry_After="30")
        for method in ("GET", "HEAD", "GET"):
            status, cache_status, response = await client.get(method=method)
            assert (status, cache_status) == (200, "STALE")
            assert response.headers["warning"].startswith("299 ")
        assert registry.methods() == ["HEAD"]
        registry.override = None
        assert await client.status() == (200, "STALE")
        client.clock.now_s += 30
        assert await client.status() == (200, "REVALIDATED")

    async def test_without_one_the_client_is_told_when_to_come_back(self, client: Client, registry: Registry) -> None:
        """First by the registry's own answer, then by ours, which clients can read."""
        registry.tag("3.20", OLD)
        registry.override = busy(Retry_After="3000")
        status, _, response = await client.get()
        assert (status, response.text, response.headers["retry-after"]) == (429, "slow down", "3000")
        registry.take_asked()
        status, _, response = await client.get()
        assert (status, registry.methods()) == (429, [])
        # by the proxy's clock, which this test has turned back: what counts is that there is a number
        assert int(response.headers["retry-after"]) >= 1
        (error,) = json.loads(response.content or b"")["errors"]
        assert error["code"] == "TOOMANYREQUESTS"
        assert registry.name in error["message"]

    async def test_a_blob_and_a_login_are_answered_the_same_way(self, client: Client, registry: Registry) -> None:
        """Every way to the registry is closed to that account, and open to others."""
        blob = registry.blob(b"content")
        path = f"/v2/library/alpine/blobs/{blob}"
        registry.override = busy(Retry_After="3000")
        assert (await client.status(Authorization=OWN))[0] == 429
        registry.override = None
        registry.take_asked()
        for refused in (path, "/v2/"):
            status, _, response = await client.get(refused, Authorization=OWN)
            assert (status, json.loads(response.content or b"")["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
        assert registry.methods() == []
        assert (await client.status(path))[0] == 200

    async def test_without_retry_after_the_pause_grows(self, client: Client, registry: Registry) -> None:
        """A second, then two."""
        registry.tag("3.20", OLD)
        await client.get()
        registry.override = busy()
        registry.take_asked()
        for wait_s in (0.5, 0.5, 1.5, 0.5):
            await client.get()
            client.clock.now_s += wait_s
        assert len(registry.methods()) == 2
        await client.get()
        assert len(registry.methods()) == 1


class TestLowQuota:
    async def test_a_tag_that_has_moved_is_not_fetched(self, client: Client, registry: Registry) -> None:
        """The HEAD is free, the GET is not; a client's HEAD hears of the old content too, or its GET would count."""
        registry.tag("3.20", OLD)
        await client.get()
        registry.tag("3.20", NEW)
        quota(registry, 9)
        registry.take_asked()
        for method, body in (("GET", OLD), ("HEAD", b""), ("GET", OLD)):
            status, cache_status, response = await client.get(method=method)
            assert (status, cache_status, response.raw_content) == (200, "STALE", body)
            assert response.headers["docker-content-digest"] == str(Digest.of(OLD))
        assert registry.methods() == ["HEAD"] * 3

        quota(registry, 10)
        _, cache_status, response = await client.get()
        assert (cache_status, response.raw_content) == ("EXPIRED", NEW)

    async def test_what_is_not_stored_is_fetched(self, client: Client, registry: Registry) -> None:
        """That is what the rest of the quota is for."""
        registry.tag("3.20", OLD)
        quota(registry, 1)
        await client.get()
        digest = registry.tag("3.21", NEW)
        assert await client.status(TAG.replace("3.20", "3.21")) == (200, "MISS")
        assert await client.status(TAG.replace("3.20", str(digest))) == (200, "HIT")

    async def test_an_unmoved_tag_is_revalidated(self, client: Client, registry: Registry) -> None:
        """As always: it costs nothing."""
        registry.tag("3.20", OLD)
        quota(registry, 1)
        await client.get()
        assert await client.status() == (200, "REVALIDATED")

    async def test_a_client_that_insists_gets_the_new_content(self, client: Client, registry: Registry) -> None:
        """`Cache-Control: no-cache` is worth a pull."""
        registry.tag("3.20", OLD)
        await client.get()
        registry.tag("3.20", NEW)
        quota(registry, 9)
        _, cache_status, response = await client.get(Cache_Control="no-cache")
        assert (cache_status, response.raw_content) == ("EXPIRED", NEW)

    async def test_where_a_head_may_count_it_is_not_sent(self, client: Client, registry: Registry) -> None:
        """Only Docker Hub says that it is free."""
        registry.tag("3.20", OLD)
        quota(registry, 9, hub=False)
        await client.get()
        registry.take_asked()
        assert await client.status() == (200, "STALE")
        assert registry.methods() == []

    async def test_a_decision_of_the_registry_is_passed_on(self, client: Client, registry: Registry) -> None:
        """A tag that is gone is gone, whatever the quota."""
        registry.tag("3.20", OLD)
        quota(registry, 1)
        await client.get()
        del registry.contents[TAG]
        assert (await client.status())[0] == 404
