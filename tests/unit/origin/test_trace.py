"""What a request cost upstream, in nginx's words; and the storage whose signature has run out."""

from collections.abc import Callable

import pytest
from aiohttp import web

from regproxy.origin.request import UpstreamRequest
from regproxy.origin.trace import MOST_ATTEMPTS, Trace
from regproxy.policy.redirects import Url
from unit.origin.conftest import Open, Serve

REGISTRY = Url("https", "registry.test", 443, "/v2/")
STORAGE = Url("http", "fd00::1", 8080, "/blob?signature=s3cret")


def clock(*times_s: float) -> Callable[[], float]:
    left = list(times_s)
    return lambda: left.pop(0)


def test_hops_are_joined_by_a_colon_and_attempts_by_a_comma() -> None:
    """As nginx's log variables are; a hop without a connection is its host, and no query is told."""
    trace = Trace(clock(1.0, 1.25, 1.25, 2.0, 5.0, 5.0625, 9.0))
    first = trace.begin()
    first.begin_hop(REGISTRY).address = "192.0.2.1:443"
    first.begin_hop(STORAGE)
    first.end()
    second = trace.begin()
    second.begin_hop(REGISTRY).address = "192.0.2.2:443"
    second.end()

    assert trace.addresses() == "192.0.2.1:443 : [fd00::1]:8080, 192.0.2.2:443"
    assert trace.times_s() == "0.250 : 0.750, 0.062"
    assert trace.last_host == "registry.test"


def test_a_hop_under_way_has_taken_the_time_so_far() -> None:
    """The line of a client that left does not wait for the download."""
    trace = Trace(clock(1.0, 3.5))
    trace.begin().begin_hop(STORAGE)

    assert trace.times_s() == "2.500"
    assert trace.last_host == "[fd00::1]:8080"


def test_a_part_beside_another_is_not_told_of() -> None:
    """One line has one story."""
    trace = Trace()
    leader = trace.begin()
    leader.begin_hop(REGISTRY)
    trace.begin().begin_hop(STORAGE)

    assert trace.addresses() == "registry.test"


def test_a_bad_line_does_not_make_a_long_one() -> None:
    """Some attempts stand for all."""
    trace = Trace()
    for _ in range(MOST_ATTEMPTS + 5):
        attempt = trace.begin()
        attempt.begin_hop(REGISTRY)
        attempt.end()

    assert len(trace.attempts) == MOST_ATTEMPTS


def test_nothing_asked_is_nothing_told() -> None:
    """A hit."""
    assert (Trace().addresses(), Trace().times_s(), Trace().last_host) == ("", "", None)


class TestRequests:
    async def test_each_hop_has_the_address_that_answered(self, serve: Serve, open_upstream: Open) -> None:
        """Also one whose answer has no body, whose connection is gone when its head is read; bytes are counted."""

        async def storage(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=b"content")

        storage_port = await serve(storage)

        async def registry(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{storage_port}/x?signature=s3cret"})

        port = await serve(registry)
        trace = Trace()

        await open_upstream().ask(UpstreamRequest("GET", Url("http", "127.0.0.1", port, "/"), (), trace), 1000)

        assert trace.addresses() == f"127.0.0.1:{port} : 127.0.0.1:{storage_port}"
        assert trace.last_host == f"127.0.0.1:{storage_port}"
        assert trace.received_bytes == 7

    async def test_equal_requests_stay_equal(self) -> None:
        """One flight serves everyone who asks the same, whoever writes it down."""
        url = Url("http", "a.test", 80, "/")

        assert UpstreamRequest("GET", url, (), Trace()) == UpstreamRequest("GET", url, ())
        assert hash(UpstreamRequest("GET", url, (), Trace())) == hash(UpstreamRequest("GET", url, ()))


class TestRefusedSignatures:
    @pytest.mark.parametrize(("refusals", "status"), [(0, 200), (1, 200), (2, 403)])
    async def test_the_registry_is_asked_anew_once(
        self, serve: Serve, open_upstream: Open, refusals: int, status: int
    ) -> None:
        """Storage that does not take a signature gets a new one; what it then says counts."""
        left, signed = refusals, 0

        async def storage(_request: web.BaseRequest) -> web.StreamResponse:
            nonlocal left
            left -= 1
            return web.Response(status=403 if left >= 0 else 200)

        storage_port = await serve(storage)

        async def registry(_request: web.BaseRequest) -> web.StreamResponse:
            nonlocal signed
            signed += 1
            return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{storage_port}/x?sig={signed}"})

        port = await serve(registry)

        answer = await open_upstream().ask(UpstreamRequest("GET", Url("http", "127.0.0.1", port, "/"), ()), 1000)

        assert answer.status == status
        assert signed == min(refusals, 1) + 1

    async def test_a_refusal_of_the_registry_itself_stands(self, serve: Serve, open_upstream: Open) -> None:
        """It is asked once, also at the end of a redirect to itself."""
        asked = 0

        async def registry(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return web.Response(status=403 if request.path == "/b" else 307, headers={"Location": "/b"})

        port = await serve(registry)

        answer = await open_upstream().ask(UpstreamRequest("GET", Url("http", "127.0.0.1", port, "/a"), ()), 1000)

        assert (answer.status, asked) == (403, 2)
