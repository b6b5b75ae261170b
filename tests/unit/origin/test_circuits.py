"""The circuit breakers on real connections: what opens them, who is refused, and how a host that is back is found."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Literal

import pytest
from aiohttp import web

from regproxy.origin import circuits, patience
from regproxy.origin.blobs import fill
from regproxy.origin.circuits import Circuits
from regproxy.origin.client import Upstream
from regproxy.origin.errors import UpstreamAway, UpstreamUnavailable
from regproxy.origin.patience import within
from regproxy.origin.request import UpstreamRequest
from regproxy.policy import breaker
from regproxy.policy.breaker import Closed, HalfOpen, Need, Open
from regproxy.policy.freshness import NotAsked
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.redirects import Url
from unit.origin.conftest import Open as OpenUpstream
from unit.origin.conftest import Serve

LIMIT_BYTES = 1000


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def get(port: int, host: str = "127.0.0.1", scheme: Literal["http", "https"] = "http") -> UpstreamRequest:
    return UpstreamRequest("GET", Url(scheme, host, port, "/v2/"), ())


def timed(upstream: Upstream, clock: Clock) -> Upstream:
    """Give a client a clock of ours."""
    upstream.circuits = Circuits(clock)
    return upstream


async def ask(upstream: Upstream, request: UpstreamRequest, need: Need = Need.OPTIONAL) -> int:
    """Return the status of the answer."""
    async with within(30.0, need):
        return (await upstream.ask(request, LIMIT_BYTES)).status


@contextlib.contextmanager
def listening(backlog: int = 100) -> Iterator[socket.socket]:
    """Take connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        listener.setblocking(False)
        yield listener


def count_connections(listener: socket.socket) -> int:
    """Return how many connections have come since the last call."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def refusing_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Scripted:
    """A handler whose status a test sets; `gate` holds its answers."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def __call__(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.count += 1
        self.asked.set()
        await self.gate.wait()
        return web.Response(status=self.status, text="ok")


async def test_a_refused_connection_opens_and_the_next_is_not_tried(open_upstream: OpenUpstream) -> None:
    """The second client is told at once since when, why, and when the host is asked again."""
    upstream, request = open_upstream(), get(refusing_port())
    with pytest.raises(UpstreamUnavailable) as first:
        await ask(upstream, request)
    assert not isinstance(first.value, UpstreamAway)
    assert isinstance(upstream.circuits.state(request.url.origin), Open)

    with pytest.raises(UpstreamAway) as second:
        await ask(upstream, request)

    text = str(second.value)
    assert text.startswith(f"{request.url.origin} cannot be reached: Connection refused; no answer since 20")
    assert " UTC, the next request that needs it may try again in " in text


async def test_a_name_that_cannot_be_resolved_opens(open_upstream: OpenUpstream) -> None:
    """Without DNS no host answers."""

    async def lookup(_host: str, _family: socket.AddressFamily) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    upstream = open_upstream(lookup=lookup)
    with pytest.raises(UpstreamUnavailable):
        await ask(upstream, get(80, "registry.test"))
    assert list(upstream.circuits.states()) == ["http://registry.test"]


async def test_a_connection_that_does_not_come_about_is_given_up(
    open_upstream: OpenUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that takes the connection and leaves TLS unanswered is one that hangs."""
    monkeypatch.setattr(patience, "CONNECT_BUDGET_S", 0.1)
    with listening() as listener:
        upstream, request = open_upstream(), get(listener.getsockname()[1], scheme="https")
        with pytest.raises(UpstreamUnavailable):
            await ask(upstream, request)
        assert count_connections(listener) == 1
        for _ in range(3):
            with pytest.raises(UpstreamAway):
                await ask(upstream, request)
        assert count_connections(listener) == 0


async def test_a_slow_answer_is_waited_for_once_there_is_a_connection(
    serve: Serve, open_upstream: OpenUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget is for the connection; a registry that is slow is none that is away."""
    monkeypatch.setattr(patience, "CONNECT_BUDGET_S", 0.1)
    slow = Scripted()
    slow.gate.clear()
    upstream, request = open_upstream(), get(await serve(slow))
    asked = asyncio.get_running_loop().create_task(ask(upstream, request))
    await asyncio.sleep(0.3)
    assert not asked.done()
    slow.gate.set()
    assert await asked == 200
    assert upstream.circuits.states() == {}


async def test_a_kept_connection_that_is_silent_proves_nothing(
    serve: Serve, open_upstream: OpenUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network may be cut since it was used: it gets no longer than a new one to come about."""
    handler = Scripted()
    upstream, request = open_upstream(), get(await serve(handler))
    assert await ask(upstream, request) == 200
    monkeypatch.setattr(patience, "CONNECT_BUDGET_S", 0.1)
    handler.gate.clear()
    with pytest.raises(UpstreamUnavailable):
        await ask(upstream, request)
    handler.gate.set()
    assert isinstance(upstream.circuits.state(request.url.origin), Open)


async def test_whoever_gives_up_waiting_for_an_answer_opens(serve: Serve, open_upstream: OpenUpstream) -> None:
    """A host that takes requests and never answers is away, too."""
    handler = Scripted()
    handler.gate.clear()
    upstream, request = open_upstream(), get(await serve(handler))
    with pytest.raises(TimeoutError):
        async with within(0.1, Need.OPTIONAL):
            await upstream.ask(request, LIMIT_BYTES)
    assert isinstance(upstream.circuits.state(request.url.origin), Open)
    handler.gate.set()


async def test_a_client_that_leaves_says_nothing_about_the_host(serve: Serve, open_upstream: OpenUpstream) -> None:
    """Its request was cancelled before its time was up."""
    handler = Scripted()
    handler.gate.clear()
    upstream, request = open_upstream(), get(await serve(handler))
    asked = asyncio.get_running_loop().create_task(ask(upstream, request))
    await handler.asked.wait()
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    handler.gate.set()
    assert upstream.circuits.states() == {}


@pytest.mark.parametrize("status", [200, 401, 404, 408, 429])
async def test_answers_do_not_open(serve: Serve, open_upstream: OpenUpstream, status: int) -> None:
    """However often: a rate limit is for `Retry-After`, not for the breaker."""
    handler = Scripted(status)
    upstream, request = open_upstream(), get(await serve(handler))
    for _ in range(2 * breaker.ERRORS_BEFORE_OPEN):
        assert await ask(upstream, request) == status
    assert upstream.circuits.states() == {}


async def test_errors_in_a_row_open(serve: Serve, open_upstream: OpenUpstream) -> None:
    """A front without its registry is asked no more."""
    handler = Scripted(503)
    upstream, request = open_upstream(), get(await serve(handler))
    for _ in range(breaker.ERRORS_BEFORE_OPEN):
        assert await ask(upstream, request) == 503
    with pytest.raises(UpstreamAway, match="answered 503; no answer since"):
        await ask(upstream, request)
    assert handler.count == breaker.ERRORS_BEFORE_OPEN


async def test_what_an_operator_has_to_change_does_not_open(serve: Serve, open_upstream: OpenUpstream) -> None:
    """A certificate that is not trusted is answered quickly, and gets no better by waiting."""
    port = await serve(Scripted(), tls=True)
    upstream = open_upstream()
    with pytest.raises(UpstreamUnavailable, match="not trusted"):
        await ask(upstream, get(port, scheme="https"))
    assert upstream.circuits.states() == {}


async def test_storage_that_fails_does_not_close_the_registry(serve: Serve, open_upstream: OpenUpstream) -> None:
    """The host that a redirect names has a breaker of its own."""
    storage = refusing_port()

    async def registry(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{storage}/blob"})

    upstream, request = open_upstream(), get(await serve(registry))
    with pytest.raises(UpstreamUnavailable):
        await ask(upstream, request)
    assert list(upstream.circuits.states()) == [f"http://127.0.0.1:{storage}"]


async def test_a_stale_answer_has_the_host_probed(
    open_upstream: OpenUpstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """At no client's cost: the client is refused at once, and the next one finds the host back. Said once each."""
    caplog.set_level(logging.INFO, "regproxy.origin.circuits")
    port = refusing_port()
    upstream = timed(
        open_upstream(
            mappings=(UpstreamMapping.parse(f"registry.test=127.0.0.1:{port}"),),
            listed=(HostPattern.parse("registry.test"),),
        ),
        clock,
    )
    request = get(80, "registry.test")
    with pytest.raises(UpstreamUnavailable):
        await ask(upstream, request)
    with pytest.raises(UpstreamAway):
        await ask(upstream, request)
    assert not upstream._probes  # too early
    clock.now_s += breaker.PROBE_INTERVAL_S
    with pytest.raises(UpstreamAway):
        await ask(upstream, request)
    await asyncio.gather(*upstream._probes)
    assert isinstance(upstream.circuits.state(request.url.origin), Open)

    handler = Scripted()
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        clock.now_s += breaker.PROBE_INTERVAL_S
        with pytest.raises(UpstreamAway):
            await ask(upstream, request)
        await asyncio.gather(*upstream._probes)
        assert handler.count == 1
        assert await ask(upstream, request) == 200
    finally:
        await runner.cleanup()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    opened, closed = caplog.messages
    assert opened.startswith("http://registry.test cannot be reached: Connection refused; what is stored is served ")
    assert closed == "http://registry.test answers again after 4 s"


async def test_who_needs_the_host_is_the_probe_and_the_others_wait_for_it(
    serve: Serve, open_upstream: OpenUpstream, clock: Clock
) -> None:
    """A registry that is back must not fail the layers of one pull: one goes ahead, the others follow."""
    handler = Scripted()
    handler.gate.clear()
    upstream, request = timed(open_upstream(), clock), get(await serve(handler))
    upstream.circuits.failed(request.url.origin, "it was away", is_probe=False)
    clock.now_s += breaker.REST_S
    pulls = [asyncio.get_running_loop().create_task(ask(upstream, request, Need.REQUIRED)) for _ in range(5)]
    await handler.asked.wait()
    await asyncio.sleep(0.05)
    assert handler.count == 1
    assert isinstance(upstream.circuits.state(request.url.origin), HalfOpen)
    handler.gate.set()
    assert await asyncio.gather(*pulls) == [200] * 5


async def test_who_needs_the_host_waits_a_moment_for_its_turn(
    serve: Serve, open_upstream: OpenUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first seconds of what may be a restart nobody fails because of another's failure."""
    monkeypatch.setattr(breaker, "REST_S", 0.1)
    upstream, request = open_upstream(), get(await serve(Scripted()))
    upstream.circuits.failed(request.url.origin, "it was away", is_probe=False)
    pulls = [ask(upstream, request, Need.REQUIRED) for _ in range(3)]
    assert await asyncio.gather(*pulls) == [200] * 3


async def test_the_others_fail_with_the_probe(
    open_upstream: OpenUpstream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attempt for all of them, and no waiting longer than a connection may take."""
    monkeypatch.setattr(patience, "PROBE_LIMIT_S", 0.2)
    with listening() as listener:
        upstream = timed(open_upstream(), clock)
        request = get(listener.getsockname()[1], scheme="https")
        upstream.circuits.failed(request.url.origin, "it was away", is_probe=False)
        clock.now_s += breaker.REST_S
        pulls = [ask(upstream, request, Need.REQUIRED) for _ in range(5)]
        outcomes = await asyncio.gather(*pulls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UpstreamUnavailable, *([UpstreamAway] * 4)]
        assert count_connections(listener) == 1


async def test_others_do_not_wait_for_a_probe_that_takes_long(
    open_upstream: OpenUpstream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told that it is being tried."""
    monkeypatch.setattr(circuits, "CONNECT_BUDGET_S", 0.05)
    with listening() as listener:
        upstream = timed(open_upstream(), clock)
        request = get(listener.getsockname()[1], scheme="https")
        upstream.circuits.failed(request.url.origin, "it was away", is_probe=False)
        clock.now_s += breaker.REST_S
        probe = asyncio.get_running_loop().create_task(ask(upstream, request, Need.REQUIRED))
        await asyncio.sleep(0)
        with pytest.raises(UpstreamAway, match="it is being tried again now"):
            await ask(upstream, request, Need.REQUIRED)
        probe.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probe
        assert isinstance(upstream.circuits.state(request.url.origin), Open)  # no probe is out any more


async def test_a_blob_is_not_waited_for_in_an_outage_that_is_known(open_upstream: OpenUpstream, clock: Clock) -> None:
    """A restart of a registry is waited out; what has been away for longer fails at once."""

    class Sink:
        size_bytes: int | None = None
        etag: str | None = None

        def missing_from(self) -> int:
            return 0

        def missing(self) -> list[tuple[int, int]]:
            return []

    upstream, request = timed(open_upstream(), clock), get(refusing_port())
    upstream.circuits.failed(request.url.origin, "it was away", is_probe=False)
    clock.now_s += 100.0
    upstream.circuits.failed(request.url.origin, "it is away", is_probe=False)
    with pytest.raises(UpstreamAway, match="it is away; no answer since"):
        await fill(Sink(), request, upstream)  # type: ignore[arg-type]


async def test_offline_nothing_is_asked(serve: Serve, open_upstream: OpenUpstream) -> None:
    """Neither by our own client nor by another one."""
    handler = Scripted()
    upstream, request = open_upstream(offline=True), get(await serve(handler))
    for need in Need:
        with pytest.raises(UpstreamUnavailable, match="is not asked: OFFLINE is set") as refused:
            await ask(upstream, request, need)
        assert refused.value.failure == NotAsked()
        assert not refused.value.passing
    with pytest.raises(UpstreamUnavailable, match="OFFLINE"):
        upstream.admit_other(request.url)
    assert handler.count == 0


def test_the_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from clients."""
    monkeypatch.setattr(circuits, "MOST_HOSTS", 3)
    known = Circuits()
    for number in range(5):
        known.failed(f"https://{number}.test", "refused", is_probe=False)
    assert list(known.states()) == [f"https://{number}.test" for number in (2, 3, 4)]
    assert isinstance(known.state("https://0.test"), Closed)


def test_what_another_client_sends_counts_too(clock: Clock) -> None:
    """Its failures open, its answers close, and while a host rests it is not let out."""
    known = Circuits(clock)
    known.admit_other("https://registry.test").failed("https://registry.test cannot be reached")
    clock.now_s += breaker.RESTART_S
    known.admit_other("https://registry.test").failed("https://registry.test cannot be reached")
    with pytest.raises(UpstreamAway):
        known.admit_other("https://registry.test")
    known.answered("https://registry.test", 200, is_probe=False)
    known.admit_other("https://registry.test").answered(200)
    assert known.states() == {}
