"""What is known of limits: who is left alone, who is not, for how long, and what is said of it."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from regproxy.oci.digest import Digest
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.blobs import fill
from regproxy.origin.callers import ANONYMOUS, Caller
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.quota import Quotas
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.credentials import Credential, basic_header
from regproxy.policy.freshness import Status
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url
from regproxy.store.content import Store
from regproxy.store.ingest import Ingest
from unit.origin.conftest import OPTIONS, Serve
from unit.origin.test_tokens import source
from unit.origin.token_world import World, says

HUB = Url.parse("https://registry-1.docker.io/v2/library/alpine/manifests/latest")
OTHER = Url.parse("https://quay.io/v2/a/manifests/latest")
ALICE, BOB = Caller("user=alice", "/"), Caller("user=bob", "/")
SECRET = "hunter2-Zq7"

type Open = Callable[..., Awaitable[World]]


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now_s=1000.0, unix_s=1_763_700_000.0)


@pytest.fixture
def quotas(clock: SimpleNamespace) -> Quotas:
    return Quotas(lambda: clock.now_s, lambda: clock.unix_s)


def answered(
    quotas: Quotas,
    status: int,
    caller: Caller = ALICE,
    *,
    url: Url = HUB,
    method: str = "GET",
    by: str = "",
    **fields: str,
) -> None:
    """Tell of one answer; `Retry_After` is `retry-after`."""
    told = {name.replace("_", "-").lower(): text for name, text in fields.items()}
    if "retry-after" in told:
        told["Retry-After"] = told.pop("retry-after")
    quotas.observe(url, method, caller, status=status, fields=told, answered_by=by or url.origin)


def hub_quota(quotas: Quotas, remaining: int, caller: Caller = ALICE, source: str = "192.0.2.1") -> None:
    """Tell of an answer with Docker Hub's fields."""
    answered(
        quotas,
        200,
        caller,
        ratelimit_limit="100;w=21600",
        ratelimit_remaining=f"{remaining};w=21600",
        docker_ratelimit_source=source,
    )


def rests(quotas: Quotas, caller: Caller = ALICE, url: Url = HUB) -> bool:
    """Whether a GET may not be asked now."""
    try:
        quotas.check(url, "GET", caller, dispensable=False)
    except UpstreamUnavailable as error:
        return (error.failure, error.retry_at_s is None) == (Status(429), False)
    return False


class TestRests:
    def test_a_registry_is_left_alone_for_as_long_as_it_said(self, quotas: Quotas, clock: SimpleNamespace) -> None:
        """Not a moment less, and not longer."""
        answered(quotas, 429, Retry_After="30")
        for passed_s, resting in ((0.0, True), (29.9, True), (30.0, False)):
            clock.now_s = 1000.0 + passed_s
            assert rests(quotas) is resting

    def test_others_are_not_held_up(self, quotas: Quotas) -> None:
        """Neither another account, nor a client without one, nor another registry."""
        answered(quotas, 429, Retry_After="30")
        assert rests(quotas)
        assert not rests(quotas, BOB)
        assert not rests(quotas, ANONYMOUS)
        assert not rests(quotas, url=OTHER)

    def test_without_a_time_it_is_left_alone_for_longer_each_time(self, quotas: Quotas, clock: SimpleNamespace) -> None:
        """A second, two, four, at most a minute; an answered GET ends the growth, a HEAD does not."""
        waits_s = []
        for _ in range(8):
            answered(quotas, 429)
            (rest,) = quotas.rests()
            waits_s.append(rest.remaining_s)
            clock.now_s += rest.remaining_s
            answered(quotas, 200, method="HEAD")
        assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60]
        answered(quotas, 200)
        answered(quotas, 429)
        assert quotas.rests()[0].remaining_s == 1

    def test_answers_to_one_burst_are_one_refusal(self, quotas: Quotas) -> None:
        """The connections of a large blob get theirs at the same time."""
        for _ in range(4):
            answered(quotas, 429)
        assert quotas.rests()[0].remaining_s == 1

    def test_an_answer_that_was_under_way_does_not_end_a_rest(self, quotas: Quotas) -> None:
        """It was asked for before."""
        answered(quotas, 429, Retry_After="30")
        answered(quotas, 200)
        assert rests(quotas)

    def test_a_second_429_does_not_shorten_a_rest(self, quotas: Quotas) -> None:
        """Each connection may be told another time."""
        answered(quotas, 429, Retry_After="30")
        answered(quotas, 429, Retry_After="10")
        assert quotas.rests()[0].remaining_s == 30

    def test_a_zero_is_no_leave_to_hammer(self, quotas: Quotas) -> None:
        """It backs off as if nothing had been said."""
        answered(quotas, 429, Retry_After="0")
        assert rests(quotas)

    def test_storage_that_is_overrun_holds_up_its_path_only(self, quotas: Quotas) -> None:
        """The registry has done its part."""
        answered(quotas, 429, by="https://cdn.example", Retry_After="30")
        assert rests(quotas)
        assert not rests(quotas, url=Url.parse(f"{HUB.origin}/v2/library/alpine/manifests/3"))

    def test_it_is_said_once(self, quotas: Quotas, caplog: pytest.LogCaptureFixture) -> None:
        """Who, at which registry, for how long."""
        for _ in range(3):
            answered(quotas, 429, Retry_After="30")
        (record,) = caplog.records
        assert (record.levelno, "user=alice" in record.message) == (logging.WARNING, True)
        assert "https://registry-1.docker.io" in record.message
        assert "30 s" in record.message


class TestQuotas:
    def test_a_low_quota_is_said_once_a_fall(self, quotas: Quotas, caplog: pytest.LogCaptureFixture) -> None:
        """With registry, user, remainder, limit and window; again after it has recovered, not when it swings."""
        caplog.set_level(logging.WARNING)
        for remaining in (50, 10, 9, 8, 10, 9, 19, 7, 20, 11, 9):
            hub_quota(quotas, remaining)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert "9 of 100" in caplog.records[0].message
        for word in ("https://registry-1.docker.io", "user=alice", "21600 s"):
            assert word in caplog.records[0].message

    def test_one_account_under_two_names_is_one_fall(self, quotas: Quotas, caplog: pytest.LogCaptureFixture) -> None:
        """Docker Hub says whom it counts: a client with a new token for each pull is told of once."""
        hub_quota(quotas, 5, Caller("a client's own login (1)", "1"))
        hub_quota(quotas, 4, Caller("a client's own login (2)", "2"))
        hub_quota(quotas, 4, BOB, source="another")
        assert len(caplog.records) == 2

    def test_what_is_dispensable_is_spared_when_it_is_low(self, quotas: Quotas, clock: SimpleNamespace) -> None:
        """Of that account, and only what counts; until the window is over."""
        hub_quota(quotas, 9)
        for method, caller, dispensable, spared in (
            ("GET", ALICE, True, True),
            ("GET", ALICE, False, False),
            ("HEAD", ALICE, True, False),
            ("GET", BOB, True, False),
        ):
            if spared:
                with pytest.raises(UpstreamUnavailable, match="9 of 100"):
                    quotas.check(HUB, method, caller, dispensable=dispensable)
            else:
                quotas.check(HUB, method, caller, dispensable=dispensable)
        clock.unix_s += 21600
        quotas.check(HUB, "GET", ALICE, dispensable=True)

    def test_what_a_storage_host_says_is_not_the_registrys(self, quotas: Quotas) -> None:
        """After a redirect the fields are another host's."""
        answered(quotas, 200, by="https://cdn.example", ratelimit_limit="100", ratelimit_remaining="1")
        assert quotas.quotas() == ()

    def test_the_view_has_what_is_known(self, quotas: Quotas, clock: SimpleNamespace) -> None:
        """For metrics: registry, account, remainder, limit, window, when; no path's query."""
        hub_quota(quotas, 42)
        answered(quotas, 429, by="https://cdn.example", url=Url.parse(f"{HUB.origin}/v2/a?secret=1"), Retry_After="9")
        (known,) = quotas.quotas()
        assert (known.registry, known.caller) == (HUB.origin, "user=alice")
        quota = known.quota
        assert (quota.remaining, quota.limit, quota.window_s, quota.seen_at_s) == (42, 100, 21600, clock.unix_s)
        (rest,) = quotas.rests()
        assert (rest.registry, rest.caller, rest.path, rest.remaining_s) == (HUB.origin, "user=alice", "/v2/a", 9)


@pytest.fixture
async def open_world(serve: Serve) -> AsyncIterator[Open]:
    """Yield what starts a registry, its token server and a client with these logins."""
    async with AsyncExitStack() as stack:

        async def start(*credentials: Credential) -> World:
            options = dataclasses.replace(
                OPTIONS,
                listed=(HostPattern.parse("127.0.0.1"), HostPattern.parse("registry.test")),
                mappings=(UpstreamMapping("registry.test", "127.0.0.1"),),
            )
            upstream = AuthorizedUpstream(options, source(*credentials))
            upstream.open()
            stack.push_async_callback(upstream.close)
            world = World(upstream, Url("http", "registry.test", 1, "/"))
            world.registry = Url("http", "registry.test", await serve(world.registry_answers), "/")
            world.challenge = (
                f'Bearer realm="http://registry.test:{await serve(world.realm_answers)}/token",service="x"'
            )
            return world

        yield start


class TestAuthorized:
    async def test_a_resting_registry_is_not_asked(self, open_world: Open) -> None:
        """The client's own login and the operator's are two accounts."""
        alice = Credential("registry.test", None, "alice", SECRET)
        world = await open_world(alice)
        own = Credential("registry.test", None, "own", "p")
        world.taken = {basic_header(alice), basic_header(own)}
        url = Url("http", "registry.test", world.registry.port, "/v2/a/x")
        own_request = UpstreamRequest("GET", url, (("Authorization", basic_header(own)),))
        assert await world.get() == 200
        world.registry_speaks = says(429, Retry_After="60")
        assert await world.get() == 429
        asked = len(world.at_registry)

        with pytest.raises(UpstreamUnavailable, match="429 to user=alice"):
            await world.get()
        assert len(world.at_registry) == asked
        world.registry_speaks = None
        assert (await world.upstream.ask(own_request, 100)).status == 200

        world.registry_speaks = says(429, Retry_After="60")
        await world.upstream.ask(own_request, 100)
        with pytest.raises(UpstreamUnavailable, match="a client's own login"):
            await world.upstream.ask(own_request, 100)

    async def test_a_resting_token_server_is_not_asked_for_another_repository(self, open_world: Open) -> None:
        """It counts what the login does, not the scope; the wait comes with the error."""
        world = await open_world(Credential("registry.test", None, "alice", SECRET))
        world.realm_speaks = says(429, Retry_After="60")
        for name in ("a", "b", "a"):
            with pytest.raises(UpstreamUnavailable) as caught:
                await world.get(name)
            assert caught.value.failure == Status(429)
            assert caught.value.retry_at_s is not None
            assert 50 < caught.value.retry_at_s - time.monotonic() <= 60
        assert len(world.at_realm) == 1

    async def test_the_quota_is_kept_for_each_login(self, open_world: Open) -> None:
        """Read from the answers, under the name of the login."""
        world = await open_world(Credential("registry.test", None, "alice", SECRET))
        world.registry_speaks = says(200, ratelimit_limit="100;w=21600", ratelimit_remaining="42;w=21600")
        await world.get()
        (known,) = world.upstream.quotas.quotas()
        assert (known.caller, known.quota.remaining) == ("user=alice", 42)
        assert SECRET not in repr(known)


BLOB = bytes(range(256)) * 1000


class Flaky:
    """A registry's blob that breaks half way, then answers 429, then gives the rest; it notes when it was asked."""

    def __init__(self, retry_after: str) -> None:
        self.asked_at_s: list[float] = []
        self.ingest: Ingest | None = None
        self._retry_after = retry_after

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the next request."""
        self.asked_at_s.append(time.monotonic())
        match len(self.asked_at_s):
            case 1:
                response = web.StreamResponse(headers={"ETag": '"x"'})
                response.content_length = len(BLOB)
                await response.prepare(request)
                await response.write(BLOB[:1000])
                while self.ingest is None or self.ingest.arrived_bytes < 1000:  # noqa: ASYNC110 - it has no event for this
                    await asyncio.sleep(0.01)
                assert request.transport is not None
                request.transport.close()
                return response
            case 2:
                return web.Response(status=429, headers={"Retry-After": self._retry_after})
            case _:
                start = request.http_range.start or 0
                fields = {"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}", "ETag": '"x"'}
                return web.Response(status=206 if start else 200, body=BLOB[start:], headers=fields)


class TestBlobs:
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """Open an empty store."""
        opened = Store(tmp_path / "cache", 64 << 20, 3600.0, 0)
        opened.open()
        yield opened
        opened.close()

    @staticmethod
    async def download(store: Store, world: World, flaky: Flaky) -> None:
        """Fill a blob and wait for what it comes to."""
        url = Url("http", "registry.test", world.registry.port, "/v2/a/x")
        request = UpstreamRequest("GET", url, (), access=Access("a"))

        async def fetch(ingest: Ingest) -> None:
            await fill(ingest, request, world.upstream)

        flaky.ingest = store.join_or_start(Digest.of(BLOB), fetch)
        await flaky.ingest.verified()

    async def test_a_download_waits_as_long_as_it_was_told(self, open_world: Open, store: Store) -> None:
        """A second, not the pause of a broken connection."""
        world = await open_world()
        flaky = world.registry_speaks = Flaky("1")
        await self.download(store, world, flaky)
        assert len(flaky.asked_at_s) == 3
        assert flaky.asked_at_s[2] - flaky.asked_at_s[1] >= 1.0

    async def test_a_download_does_not_outlast_its_clients(self, open_world: Open, store: Store) -> None:
        """Nobody waits for an hour; the registry is not asked to see whether it meant it."""
        world = await open_world()
        flaky = world.registry_speaks = Flaky("3000")
        with pytest.raises(UpstreamUnavailable, match="asked again in 3000 s"):
            await self.download(store, world, flaky)
        assert len(flaky.asked_at_s) == 2
