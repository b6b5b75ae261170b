"""When a manifest comes from the store and when from the registry: every path, on real ones."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.policy import breaker
from regproxy.stack import manifests
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of
from regproxy.stack.manifest_cache import STALE_WARNING, ManifestCache
from unit.stack.conftest import Configure
from unit.stack.registry import DOCKER, OCI, Override, Registry, hang_up, status, stay_silent

OLD, NEW = b'{"schemaVersion":2,"was":"old"}', b'{"schemaVersion":2,"is":"new, and longer"}'
TAG = "/v2/library/alpine/manifests/3.20"
HOUR_S = 3600.0

type Ask = Callable[..., http.HTTPFlow]


class Puller:
    """Asks one manifest cache, as a client that accepts OCI manifests."""

    def __init__(self, core: Core, ask: Ask) -> None:
        self.core = core
        self.cache = ManifestCache(core)
        self._ask = ask

    async def pull(self, path: str = TAG, method: str = "GET", accept: str = OCI, **fields: str) -> http.HTTPFlow:
        """Send one request and wait for its answer."""
        flow = self._ask(self.core, path, method, Accept=accept, **fields)
        await self.cache.request(flow)
        assert flow.response is not None
        return flow

    async def status(self, path: str = TAG, method: str = "GET", accept: str = OCI, **fields: str) -> str:
        """Send one request; returns what the cache did."""
        return cache_status(await self.pull(path, method, accept, **fields))


def response(flow: http.HTTPFlow) -> http.Response:
    assert flow.response is not None
    return flow.response


def cache_status(flow: http.HTTPFlow) -> str:
    exchange = exchange_of(flow)
    assert exchange is not None
    return str(exchange.cache_status)


@pytest.fixture
async def puller(configure: Configure, ask: Ask, clock: SimpleNamespace) -> Puller:
    """Return one whose tags are fresh for an hour."""
    del clock
    settings = {"MANIFEST_CACHE_PRIMARY_REGEX": "", "MANIFEST_CACHE_SECONDARY_REGEX": ""}
    return Puller(configure(ENABLE_MANIFEST_CACHE="true", MANIFEST_CACHE_DEFAULT_TIME="1h", **settings), ask)


class TestByDigest:
    async def test_it_is_fetched_once_for_good(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """A year later and with the registry away it is served from the store."""
        path = f"/v2/library/alpine/manifests/{registry.tag('3.20', OLD)}"

        assert await puller.status(path) == "MISS"
        registry.override = hang_up
        clock.now_s += 365 * 24 * HOUR_S

        again = await puller.pull(path)
        assert (cache_status(again), response(again).raw_content) == ("HIT", OLD)
        assert registry.methods() == ["GET"]

    async def test_it_is_shared_by_repositories(self, puller: Puller, registry: Registry) -> None:
        """A digest is the same content wherever the registry says that it stands."""
        digest = registry.tag("3.20", OLD)
        registry.tag("3.20", OLD, name="mirror/alpine")
        await puller.pull(f"/v2/library/alpine/manifests/{digest}")

        assert await puller.status(f"/v2/mirror/alpine/manifests/{digest}") == "HIT"
        assert await puller.status(f"/v2/mirror/alpine/manifests/{digest}") == "HIT"
        assert registry.methods() == ["GET", "HEAD"]

    async def test_a_head_is_answered_from_the_store(self, puller: Puller, registry: Registry) -> None:
        """With the length of the body and without the body."""
        path = f"/v2/library/alpine/manifests/{registry.tag('3.20', OLD)}"
        await puller.pull(path)
        registry.take_asked()

        head = response(await puller.pull(path, "HEAD"))

        assert (head.status_code, head.raw_content, head.headers["content-length"]) == (200, b"", str(len(OLD)))
        assert registry.take_asked() == []

    async def test_the_answer_is_described(self, puller: Puller, registry: Registry) -> None:
        """Type as stored, digest, quoted entity tag; what concerns the connection or a cookie jar stays behind."""
        digest = registry.tag("3.20", OLD, "application/vnd.oci.image.manifest.v1+json; charset=utf-8")

        for wanted in ("MISS", "HIT"):
            flow = await puller.pull(f"/v2/library/alpine/manifests/{digest}")
            fields = response(flow).headers
            assert cache_status(flow) == wanted
            assert fields["content-type"] == "application/vnd.oci.image.manifest.v1+json; charset=utf-8"
            assert fields["docker-content-digest"] == str(digest)
            assert fields["etag"] == f'"{digest}"'
            assert fields["content-length"] == str(len(OLD))
            assert "set-cookie" not in fields
            assert fields.get("ratelimit-remaining") == ("99;w=21600" if wanted == "MISS" else None)

    async def test_a_type_that_the_client_does_not_accept_is_not_served(
        self, puller: Puller, registry: Registry
    ) -> None:
        """The registry is asked, which may have another form of it."""
        path = f"/v2/library/alpine/manifests/{registry.tag('3.20', OLD, OCI)}"
        await puller.pull(path)

        assert await puller.status(path, accept=DOCKER) == "MISS"
        assert await puller.status(path, accept="*/*") == "HIT"
        assert registry.methods() == ["GET", "GET"]

    async def test_other_content_is_neither_served_nor_stored(self, puller: Puller, registry: Registry) -> None:
        """A 502 says why; the next client asks again and gets the right one."""
        digest = registry.tag("3.20", OLD)
        path = f"/v2/library/alpine/manifests/{digest}"

        async def lie(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=NEW, headers={"Content-Type": OCI, "Docker-Content-Digest": str(digest)})

        registry.override = lie
        flow = await puller.pull(path)
        assert response(flow).status_code == 502
        assert str(digest).encode() in (response(flow).raw_content or b"")
        registry.override = None

        assert response(await puller.pull(path)).raw_content == OLD

    async def test_a_sha512_digest_is_a_digest(self, puller: Puller, registry: Registry) -> None:
        """It is verified with its own algorithm and kept for good."""
        digest = Digest.of(OLD, "sha512")
        path = f"/v2/library/alpine/manifests/{digest}"
        registry.contents[path] = (OLD, OCI)

        assert [await puller.status(path), await puller.status(path)] == ["MISS", "HIT"]


class TestByTag:
    async def test_it_is_fresh_for_its_tiers_time(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """Not a question to the registry before the hour is over; then one HEAD, which makes it fresh again."""
        registry.tag("3.20", OLD)

        assert await puller.status() == "MISS"
        clock.now_s += HOUR_S - 1
        assert await puller.status() == "HIT"
        assert registry.methods() == ["GET"]
        clock.now_s += 2
        assert await puller.status() == "REVALIDATED"
        assert registry.methods() == ["HEAD"]
        clock.now_s += HOUR_S - 1
        assert await puller.status() == "HIT"
        assert registry.methods() == []

    async def test_a_tag_that_has_moved_is_fetched(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """HEAD shows it, GET brings it, and from then on it is what is served."""
        registry.tag("3.20", OLD)
        await puller.pull()
        registry.tag("3.20", NEW)
        clock.now_s += HOUR_S + 1

        moved = await puller.pull()

        assert (cache_status(moved), response(moved).raw_content) == ("EXPIRED", NEW)
        assert registry.methods() == ["GET", "HEAD", "GET"]
        assert response(await puller.pull()).raw_content == NEW
        assert registry.methods() == []

    @pytest.mark.parametrize(
        "outage",
        [hang_up, status(500), status(502), status(503), status(408)],
        ids=["hang up", "500", "502", "503", "408"],
    )
    async def test_an_outage_serves_the_last_good_answer(
        self,
        puller: Puller,
        registry: Registry,
        clock: SimpleNamespace,
        outage: Override,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Said to be stale in status and warning; and its end is found by the pulls that come then."""
        monkeypatch.setattr(breaker, "PROBE_INTERVAL_S", 0.0)
        registry.tag("3.20", OLD)
        await puller.pull()
        clock.now_s += HOUR_S + 1
        registry.override = outage

        stale = await puller.pull()
        assert (cache_status(stale), response(stale).status_code, response(stale).raw_content) == ("STALE", 200, OLD)
        assert response(stale).headers["warning"] == STALE_WARNING
        exchange = exchange_of(stale)
        assert exchange is not None
        assert exchange.error
        assert await puller.status(method="HEAD") == "STALE"

        registry.override = None
        recovered = await puller.pull()
        if cache_status(recovered) == "STALE":  # it was refused, and had the registry asked behind its back
            await asyncio.gather(*puller.core.upstream._probes)
            recovered = await puller.pull()
        assert cache_status(recovered) == "REVALIDATED"
        assert "warning" not in response(recovered).headers

    @pytest.mark.parametrize("code", [400, 401, 403, 404])
    async def test_a_decision_of_the_registry_is_not_an_outage(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace, code: int
    ) -> None:
        """An image that was deleted or closed does not live on here; the client gets the registry's own words."""
        registry.tag("3.20", OLD)
        await puller.pull()
        clock.now_s += HOUR_S + 1
        registry.override = status(code)

        refused = response(await puller.pull())

        assert (refused.status_code, refused.raw_content) == (code, b'{"errors":[]}')
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "warning" not in refused.headers

    async def test_a_slow_registry_is_not_waited_for_when_there_is_an_answer(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the limit the stale one is served."""
        monkeypatch.setattr(manifests, "REVALIDATION_LIMIT_S", 0.05)
        registry.tag("3.20", OLD)
        await puller.pull()
        clock.now_s += HOUR_S + 1
        registry.override = stay_silent

        stale = await puller.pull()

        assert (cache_status(stale), response(stale).raw_content) == ("STALE", OLD)

    async def test_the_content_is_fetched_again_if_it_was_evicted(self, puller: Puller, registry: Registry) -> None:
        """A record without its content is no answer, fresh or not."""
        digest = registry.tag("3.20", OLD)
        await puller.pull()
        puller.core.store._layout.content(digest).unlink()
        puller.core.store._hot.clear()

        flow = await puller.pull()

        assert response(flow).raw_content == OLD
        assert registry.methods()[-1] == "GET"

    async def test_each_kind_of_client_has_its_own_answer(self, puller: Puller, registry: Registry) -> None:
        """One that accepts Docker's types alone after one that accepts OCI's alone, and back."""

        async def by_accept(request: web.BaseRequest) -> web.StreamResponse:
            body, kind = (OLD, OCI) if OCI in request.headers["Accept"] else (NEW, DOCKER)
            return web.Response(
                body=body, headers={"Content-Type": kind, "Docker-Content-Digest": str(Digest.of(body))}
            )

        registry.override = by_accept

        for wanted in ("MISS", "HIT"):
            for accept, body in ((OCI, OLD), (DOCKER, NEW)):
                flow = await puller.pull(accept=accept)
                assert (cache_status(flow), response(flow).raw_content) == (wanted, body)
                assert response(flow).headers["content-type"] == accept
        assert registry.methods() == ["GET", "GET"]

    async def test_registries_names_and_tags_are_apart(self, puller: Puller, registry: Registry) -> None:
        """The same tag of another repository, and another tag of the same, are other things."""
        registry.tag("3.20", OLD)
        registry.tag("3.20", NEW, name="library/debian")
        registry.tag("3.21", NEW)

        for path, body in (
            (TAG, OLD),
            ("/v2/library/debian/manifests/3.20", NEW),
            ("/v2/library/alpine/manifests/3.21", NEW),
        ):
            assert response(await puller.pull(path)).raw_content == body
        assert len(registry.take_asked()) == 3

    async def test_a_client_may_ask_for_a_new_answer(self, puller: Puller, registry: Registry) -> None:
        """`Cache-Control: no-cache` makes the tag's time be up."""
        registry.tag("3.20", OLD)
        await puller.pull()

        assert await puller.status(Cache_Control="no-cache") == "REVALIDATED"
        assert registry.methods() == ["GET", "HEAD"]

    @pytest.mark.parametrize(
        ("tag", "lifetime_s"),
        [("1.2.3", 1_000_000), ("main-5", 100), ("latest", 10)],
        ids=["primary", "secondary", "default"],
    )
    async def test_the_tier_of_the_tag_decides(
        self,
        *,
        configure: Configure,
        ask: Ask,
        registry: Registry,
        clock: SimpleNamespace,
        tag: str,
        lifetime_s: float,
    ) -> None:
        """First match wins, as the predecessor's patterns do."""
        puller = Puller(
            configure(
                ENABLE_MANIFEST_CACHE="true",
                MANIFEST_CACHE_PRIMARY_REGEX=r"\d+\.\d+\.\d+",
                MANIFEST_CACHE_PRIMARY_TIME="1000000s",
                MANIFEST_CACHE_SECONDARY_REGEX="main-.*",
                MANIFEST_CACHE_SECONDARY_TIME="100s",
                MANIFEST_CACHE_DEFAULT_TIME="10s",
            ),
            ask,
        )
        registry.tag(tag, OLD)
        path = f"/v2/library/alpine/manifests/{tag}"
        await puller.pull(path)

        clock.now_s += lifetime_s - 1
        assert await puller.status(path) == "HIT"
        clock.now_s += 2
        assert await puller.status(path) == "REVALIDATED"

    async def test_without_tag_caching_every_pull_asks(
        self, configure: Configure, ask: Ask, registry: Registry
    ) -> None:
        """By HEAD, which costs nothing of a quota; and the last good answer still helps in an outage."""
        puller = Puller(configure(ENABLE_MANIFEST_CACHE="false"), ask)
        registry.tag("3.20", OLD)
        await puller.pull()

        assert [await puller.status(), await puller.status()] == ["REVALIDATED", "REVALIDATED"]
        assert registry.methods() == ["GET", "HEAD", "HEAD"]
        registry.override = hang_up
        assert await puller.status() == "STALE"

    async def test_a_pushed_tag_is_asked_for_again(self, puller: Puller, registry: Registry) -> None:
        """Forgotten for all kinds of clients, so that the push's author pulls what was pushed."""
        registry.tag("3.20", OLD)
        await puller.pull()
        registry.tag("3.20", NEW)
        await puller.core.store.forget_tag(registry.name, "library/alpine", "3.20")

        assert response(await puller.pull()).raw_content == NEW


class TestHead:
    async def test_an_answer_from_before_a_push_does_not_bring_the_old_tag_back(
        self, puller: Puller, registry: Registry
    ) -> None:
        """Who asked before gets what was; who asks after the push asks the registry again."""
        registry.tag("3.20", OLD)

        async def push_meanwhile(request: web.BaseRequest) -> None:
            del request
            await puller.core.store.forget_tag(registry.name, "library/alpine", "3.20")

        registry.override = push_meanwhile
        assert response(await puller.pull()).raw_content == OLD
        registry.override = None
        registry.tag("3.20", NEW)

        assert response(await puller.pull()).raw_content == NEW

    async def test_head_stays_head_and_is_remembered(self, puller: Puller, registry: Registry) -> None:
        """The second one is answered here, with digest, type and length; no body was ever asked for."""
        digest = registry.tag("3.20", OLD)

        for wanted in ("MISS", "HIT"):
            flow = await puller.pull(method="HEAD")
            assert cache_status(flow) == wanted
            assert response(flow).raw_content == b""
            assert response(flow).headers["content-length"] == str(len(OLD))
            assert response(flow).headers["docker-content-digest"] == str(digest)
            assert response(flow).headers["content-type"] == OCI
        assert registry.methods() == ["HEAD"]

    async def test_a_get_after_a_head_fetches(self, puller: Puller, registry: Registry) -> None:
        """The record alone cannot answer a GET."""
        registry.tag("3.20", OLD)
        await puller.pull(method="HEAD")

        assert response(await puller.pull()).raw_content == OLD
        assert await puller.status() == "HIT"

    async def test_what_a_tag_was_before_a_head_is_still_served_in_an_outage(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """A HEAD sees that the tag has moved, then the registry goes away before anyone has the new content."""
        registry.tag("3.20", OLD)
        await puller.pull()
        clock.now_s += HOUR_S + 1
        registry.tag("3.20", NEW)
        assert await puller.status(method="HEAD") == "EXPIRED"
        registry.override = hang_up

        stale = await puller.pull()

        assert (cache_status(stale), response(stale).raw_content) == ("STALE", OLD)

    async def test_a_registry_whose_head_tells_nothing_is_asked_by_get(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """Some leave the digest out; the body's own hash is the digest then."""
        registry.tag("3.20", OLD)

        async def without_digest(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=OLD, headers={"Content-Type": OCI})

        registry.override = without_digest
        first = await puller.pull()
        assert response(first).headers["docker-content-digest"] == str(Digest.of(OLD))
        clock.now_s += HOUR_S + 1

        assert await puller.status() == "EXPIRED"
        assert registry.methods() == ["GET", "HEAD", "GET"]

    async def test_a_registry_that_forbids_head_is_asked_by_get(
        self, puller: Puller, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """405 to the HEAD is no word on the tag."""
        registry.tag("3.20", OLD)
        await puller.pull()
        clock.now_s += HOUR_S + 1

        async def no_head(request: web.BaseRequest) -> web.StreamResponse | None:
            return web.Response(status=405) if request.method == "HEAD" else None

        registry.override = no_head

        assert response(await puller.pull()).raw_content == OLD


class TestFailures:
    @pytest.mark.parametrize(("outage", "code"), [(hang_up, 502), (status(503), 503), (status(404), 404)])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_without_a_stored_answer_the_client_is_told(
        self, puller: Puller, registry: Registry, outage: Override, code: int, method: str
    ) -> None:
        """The registry's own answer if there is one, else an error in the registry's form."""
        registry.override = outage

        assert response(await puller.pull(method=method)).status_code == code

    async def test_silence_is_a_504(
        self, configure: Configure, ask: Ask, registry: Registry, clock: SimpleNamespace
    ) -> None:
        """After the operator's own limit."""
        del clock
        registry.override = stay_silent

        flow = await Puller(configure(PROXY_READ_TIMEOUT="1s"), ask).pull()

        assert response(flow).status_code == 504
        assert b'"code":"UNAVAILABLE"' in (response(flow).raw_content or b"").replace(b" ", b"")

    async def test_a_manifest_beyond_all_measure_is_refused(
        self, puller: Puller, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is never held in memory; the limit itself is allowed."""
        monkeypatch.setattr(manifests, "MANIFEST_LIMIT_BYTES", len(OLD))
        registry.tag("3.20", OLD)
        registry.tag("3.21", NEW)

        assert response(await puller.pull()).status_code == 200
        refused = response(await puller.pull("/v2/library/alpine/manifests/3.21"))
        assert refused.status_code == 502
        assert b"more than" in (refused.raw_content or b"")

    async def test_a_tag_whose_body_is_not_what_it_says_is_refused(self, puller: Puller, registry: Registry) -> None:
        """The declared digest binds also where the client gave none."""

        async def lie(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=NEW, headers={"Content-Type": OCI, "Docker-Content-Digest": str(Digest.of(OLD))})

        registry.override = lie
        assert response(await puller.pull()).status_code == 502
        registry.override = None
        registry.tag("3.20", OLD)
        assert await puller.status() == "MISS"

    async def test_a_store_that_fails_does_not_stop_pulls(
        self, puller: Puller, registry: Registry, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The registry is asked each time, and the failure is said once."""
        registry.tag("3.20", OLD)
        puller.core.store.close()

        for _ in range(2):
            assert response(await puller.pull()).raw_content == OLD
        assert registry.methods() == ["GET", "GET"]
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "the cache does not work" in errors[0].message


class TestTogether:
    async def test_those_who_ask_at_the_same_time_share_one_request(self, puller: Puller, registry: Registry) -> None:
        """Ten clients, one GET."""
        registry.tag("3.20", OLD)

        flows = await asyncio.gather(*(puller.pull() for _ in range(10)))

        assert {response(flow).raw_content for flow in flows} == {OLD}
        assert registry.methods() == ["GET"]

    async def test_another_authorization_asks_for_itself(self, puller: Puller, registry: Registry) -> None:
        """What one client may see says nothing about another."""
        registry.tag("3.20", OLD)

        async def only_alice(request: web.BaseRequest) -> web.StreamResponse | None:
            return None if request.headers["Authorization"] == "Bearer alice" else web.Response(status=401)

        registry.override = only_alice
        alice, bob = await asyncio.gather(
            puller.pull(Authorization="Bearer alice"), puller.pull(Authorization="Bearer bob")
        )

        assert (response(alice).status_code, response(bob).status_code) == (200, 401)
