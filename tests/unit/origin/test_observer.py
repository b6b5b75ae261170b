"""What is told of our own requests to upstreams."""

import socket

import pytest
from aiohttp import web

from regproxy.origin.client import Upstream
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.observer import TracedRequest
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.redirects import Url
from unit.origin.conftest import OPTIONS, Serve


def request_to(port: int, target: str) -> UpstreamRequest:
    return UpstreamRequest("GET", Url("http", "127.0.0.1", port, target), (("Authorization", "Basic c2VjcmV0"),))


async def test_each_hop_is_told_at_its_start_and_at_its_answer(serve: Serve) -> None:
    """A redirect is an answer of its own; what is told is what was sent."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/first":
            return web.Response(status=307, headers={"Location": "/second?sig=1"})
        return web.Response(text="ok")

    port = await serve(handler)
    told: list[tuple[str, int | None]] = []
    requests: dict[str, TracedRequest] = {}

    def observe(request: TracedRequest) -> None:
        told.append((request.target, request.answer.status if request.answer else None))
        requests[request.id] = request

    upstream = Upstream(OPTIONS, observe)
    upstream.open()
    await upstream.ask(request_to(port, "/first"), 100)
    await upstream.close()

    assert told == [("/first", None), ("/first", 307), ("/second?sig=1", None), ("/second?sig=1", 200)]
    first, second = requests.values()
    assert (first.method, first.scheme, first.host, first.port) == ("GET", "http", "127.0.0.1", port)
    assert dict(first.fields)["Authorization"] == "Basic c2VjcmV0"
    assert first.answer is not None
    assert dict(first.answer.fields)["Location"] == "/second?sig=1"
    assert second.answer is not None
    assert second.answer.peer in (None, ("127.0.0.1", port))
    assert "c2VjcmV0" not in repr(first)
    assert "sig=1" not in repr(first)


async def test_a_failure_is_told_with_its_reason() -> None:
    """Nobody listens: the request ends with an error and without an answer."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    told: list[TracedRequest] = []
    upstream = Upstream(OPTIONS, told.append)
    upstream.open()
    with pytest.raises(UpstreamUnavailable):
        await upstream.ask(request_to(port, "/v2/"), 100)
    await upstream.close()

    assert told[0] is told[-1]
    assert told[0].answer is None
    assert told[0].error is not None
    assert "ClientConnectorError" in told[0].error


async def test_an_observer_that_fails_breaks_no_pull(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Looking is less than pulling."""

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok")

    def observe(_: TracedRequest) -> None:
        raise KeyError("a bug")

    upstream = Upstream(OPTIONS, observe)
    upstream.open()
    answer = await upstream.ask(request_to(await serve(handler), "/v2/"), 100)
    await upstream.close()

    assert answer.body == b"ok"
    assert "cannot be shown" in caplog.text
