"""mitmproxy's HTTP layer with our stream: doors, early answers, bodies from files, and what it relies on."""

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mitmproxy import http, options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._hooks import (
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.test import tflow

from regproxy.engine.bodies import FileBody, Sent, attach, attached
from regproxy.engine.connect_layer import RegistryConnectHook
from regproxy.engine.http_layer import (
    HEAD_LIMIT_BYTES,
    Door,
    RegistryBodySentHook,
    RegistryHttpLayer,
    RegistrySendBodyHook,
    Transfer,
    door,
)
from regproxy.engine.warm import Asked, WarmAnswer, WarmReads
from unit.engine.layer_driver import LayerDriver, new_context

GET = b"GET /v2/ HTTP/1.1\r\nHost: quay.io\r\n\r\n"


def send_all(transfer: Transfer) -> None:
    """Do as a sender whose client has taken everything."""
    transfer.sent = Sent(transfer.body.length_bytes, None)


class Exchange:
    """A connection's HTTP, the flows on it, and what an addon would do in each hook."""

    def __init__(
        self,
        opts: options.Options,
        mode: HTTPMode,
        *,
        on_headers: Callable[[http.HTTPFlow], None] = lambda _: None,
        on_request: Callable[[http.HTTPFlow], None] = lambda _: None,
        on_response: Callable[[http.HTTPFlow], None] = lambda _: None,
        on_send: Callable[[Transfer], None] = send_all,
        warm: WarmReads | None = None,
    ) -> None:
        self.flows: list[http.HTTPFlow] = []
        self.transfers: list[Transfer] = []
        self._on_headers, self._on_request, self._on_response, self._on_send = (
            on_headers,
            on_request,
            on_response,
            on_send,
        )
        ctx = new_context(opts)
        if mode is HTTPMode.transparent:
            ctx.server.address = ("quay.io", 443)
        self.driver = LayerDriver(RegistryHttpLayer(ctx, mode, warm), self._on_hook)

    def _on_hook(self, hook: commands.StartHook) -> None:
        match hook:
            case HttpRequestHeadersHook():
                self.flows.append(hook.flow)
                self._on_headers(hook.flow)
            case HttpRequestHook():
                self._on_request(hook.flow)
            case HttpResponseHook():
                self._on_response(hook.flow)
            case RegistrySendBodyHook():
                self.transfers.append(hook.transfer)
                self._on_send(hook.transfer)
            case _:
                pass


def refuse(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(405, b"no", {"Content-Type": "text/plain"})


@pytest.fixture
def fd(tmp_path: Path) -> int:
    (tmp_path / "blob").write_bytes(b"0123456789")
    return os.open(tmp_path / "blob", os.O_RDONLY)


def answer_with_file(fd: int) -> Callable[[http.HTTPFlow], None]:
    """Return an addon's hook that answers with ten bytes of a file."""

    def answer(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(200, b"", {"Content-Type": "application/octet-stream"})
        flow.response.headers["content-length"] = "10"
        attach(flow, FileBody(os.dup(fd), 0, 10))

    return answer


@pytest.mark.parametrize(
    ("mode", "target", "expected"),
    [
        (HTTPMode.regular, b"/ca.crt", Door.OWN),
        (HTTPMode.regular, b"http://quay.io/v2/", Door.FORWARD),
        (HTTPMode.transparent, b"/v2/", Door.TUNNEL),
    ],
)
async def test_the_door_is_known_when_an_addon_is_asked(
    opts: options.Options, mode: HTTPMode, target: bytes, expected: Door
) -> None:
    """The form of the request target and the tunnel tell, never the Host field."""
    doors: list[Door | None] = []

    def on_headers(flow: http.HTTPFlow) -> None:
        doors.append(door(flow.request))
        refuse(flow)

    exchange = Exchange(opts, mode, on_headers=on_headers)
    host = b"quay.io" if b"quay.io" in target else b"proxy.lan:3128"
    exchange.driver.receive(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")

    assert doors == [expected]


class TestUpstreamFailures:
    """What mitmproxy cannot pass on: its own page would be HTML, which no client of a registry shows."""

    @pytest.mark.parametrize(
        ("request_bytes", "is_streamed"),
        [
            (b"GET /v2/a/tags/list HTTP/1.1\r\nHost: quay.io\r\n\r\n", False),
            (b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: quay.io\r\nContent-Length: 9\r\n\r\nx", True),
        ],
    )
    async def test_a_registry_that_cannot_be_reached_is_an_oci_error(
        self, opts: options.Options, request_bytes: bytes, is_streamed: bool
    ) -> None:
        """Also in the middle of an upload; the connection ends, and the log's hook sees the status."""

        def on_headers(flow: http.HTTPFlow) -> None:
            flow.request.stream = is_streamed

        exchange = Exchange(opts, HTTPMode.transparent, on_headers=on_headers)
        exchange.driver.failures[("quay.io", 443)] = "nobody listens"
        exchange.driver.receive(request_bytes)

        head, _, body = exchange.driver.sent.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"connection: close" in head.lower()
        assert json.loads(body) == {"errors": [{"code": "UNAVAILABLE", "message": "nobody listens"}]}
        assert exchange.driver.closed
        (flow,) = exchange.flows
        assert flow.response is not None
        assert flow.response.status_code == 502
        assert exchange.driver.hooks()[-1] == "error"

    async def test_an_answer_that_breaks_off_is_cut(self, opts: options.Options) -> None:
        """What has begun as an answer must not end as an error page."""

        def on_response_headers(hook: commands.StartHook) -> None:
            if isinstance(hook, HttpResponseHeadersHook) and hook.flow.response is not None:
                hook.flow.response.stream = True

        exchange = Exchange(opts, HTTPMode.transparent)
        exchange.driver.on_hook = on_response_headers
        exchange.driver.receive(b"GET /v2/a/tags/list HTTP/1.1\r\nHost: quay.io\r\n\r\n")
        server = next(each.connection for each in exchange.driver.commands if isinstance(each, commands.OpenConnection))
        exchange.driver.feed(events.DataReceived(server, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxx"))
        exchange.driver.feed(events.ConnectionClosed(server))

        assert exchange.driver.sent.startswith(b"HTTP/1.1 200 OK")
        assert exchange.driver.sent.endswith(b"\r\n\r\nxx")
        assert exchange.driver.closed


async def test_a_request_from_elsewhere_has_no_door() -> None:
    """A replayed request has not come from a client."""
    assert door(tflow.tflow().request) is None


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 1000000\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 9\r\nExpect: 100-continue\r\n",
    ],
)
async def test_an_early_answer_does_not_wait_for_the_body(opts: options.Options, framing: bytes) -> None:
    """A refused upload costs no memory: the answer goes out at once, says `close`, and the connection is closed."""
    exchange = Exchange(opts, HTTPMode.transparent, on_headers=refuse)

    exchange.driver.receive(b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: quay.io\r\n" + framing + b"\r\n")

    head, _, body = exchange.driver.sent.rpartition(b"\r\n\r\n")
    assert b"HTTP/1.1 405 " in head
    assert b"connection: close" in head
    assert body == b"no"
    assert exchange.driver.closed
    assert not exchange.flows[0].live
    assert exchange.driver.hooks() == ["requestheaders", "responseheaders", "response"]


async def test_an_answer_to_a_request_without_body_keeps_the_connection(opts: options.Options) -> None:
    """Two requests, two answers, in order."""
    exchange = Exchange(opts, HTTPMode.transparent, on_headers=refuse)

    exchange.driver.receive(GET)
    exchange.driver.receive(GET)

    assert exchange.driver.sent.count(b"HTTP/1.1 405 ") == 2
    assert b"close" not in exchange.driver.sent
    assert not exchange.driver.closed


async def test_a_body_from_a_file_is_sent_between_headers_and_end(opts: options.Options, fd: int) -> None:
    """Headers go out first, the sender is asked with the very client, then the end is told; the file is closed."""
    headers_first: list[bytes] = []

    def send(transfer: Transfer) -> None:
        headers_first.append(exchange.driver.sent)
        send_all(transfer)

    exchange = Exchange(opts, HTTPMode.transparent, on_request=answer_with_file(fd), on_send=send)

    exchange.driver.receive(GET)

    assert headers_first[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert headers_first[0].endswith(b"\r\n\r\n")
    assert b"content-length: 10" in headers_first[0]
    assert exchange.driver.hooks() == [
        "requestheaders",
        "request",
        "responseheaders",
        "response",
        "registry_send_body",
        "registry_body_sent",
    ]
    (transfer,) = exchange.transfers
    assert transfer.client is exchange.driver.client
    assert transfer.tls_layer is None
    assert attached(exchange.flows[0]) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(transfer.body.fd)
    assert not exchange.driver.closed
    os.close(fd)


async def test_the_connection_serves_the_next_request_after_a_file(opts: options.Options, fd: int) -> None:
    """A pipelined request that arrived while the body was sent is answered after it."""
    exchange = Exchange(opts, HTTPMode.transparent, on_request=answer_with_file(fd))

    exchange.driver.receive(GET)
    exchange.driver.receive(GET + GET)

    assert len(exchange.transfers) == 3
    assert exchange.driver.sent.count(b"HTTP/1.1 200 OK") == 3
    os.close(fd)


async def test_a_failed_transfer_cuts_the_connection(opts: options.Options, fd: int) -> None:
    """A body that did not come whole must not look whole: nothing follows it but the close."""

    def fail(transfer: Transfer) -> None:
        transfer.sent = Sent(0, "it hashes to something else")

    exchange = Exchange(opts, HTTPMode.transparent, on_request=answer_with_file(fd), on_send=fail)
    exchange.driver.receive(GET)

    assert exchange.driver.closed
    assert exchange.driver.sent.count(b"HTTP/1.1") == 1
    assert exchange.driver.sent.endswith(b"\r\n\r\n")
    flow = exchange.flows[0]
    assert flow.error is not None
    assert flow.error.msg == "it hashes to something else"
    assert not flow.live
    assert "error" not in exchange.driver.hooks()
    os.close(fd)


async def test_a_killed_flow_sends_no_file(opts: options.Options, fd: int) -> None:
    """An addon may end a flow in its last hook; the file is closed without being asked for."""
    exchange = Exchange(
        opts, HTTPMode.transparent, on_request=answer_with_file(fd), on_response=lambda flow: flow.kill()
    )

    exchange.driver.receive(GET)

    assert exchange.transfers == []
    assert attached(exchange.flows[0]) is None
    assert exchange.driver.closed
    os.close(fd)


@pytest.mark.parametrize("hook", [RegistrySendBodyHook, RegistryBodySentHook, RegistryConnectHook])
def test_our_hooks_have_one_argument(hook: Callable[[object], commands.StartHook]) -> None:
    """With two the client would hang without a word in the log, for mitmproxy unpacks exactly one."""
    argument = object()

    assert hook(argument).args() == [argument]


def test_mitmproxy_unpacks_exactly_one_argument() -> None:
    """Pins the fact behind that rule: if this changes, the rule may go."""
    assert "(data,) = hook.args()" in inspect.getsource(ProxyConnectionHandler.handle_hook)


async def test_a_connect_that_is_not_the_first_request_is_refused(opts: options.Options) -> None:
    """Else mitmproxy would open the tunnel itself, past the rules of `connect_layer`."""
    exchange = Exchange(opts, HTTPMode.regular, on_headers=refuse)

    exchange.driver.receive(b"GET /first HTTP/1.1\r\nHost: proxy.lan\r\n\r\n")
    exchange.driver.receive(b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n")

    assert exchange.driver.sent.count(b"HTTP/1.1 405 ") == 1
    assert b"a CONNECT must be the first request" in exchange.driver.sent
    assert exchange.driver.closed
    assert exchange.driver.opened() == []


async def test_a_head_without_end_is_refused(opts: options.Options) -> None:
    """At the limit the client is told, once, and the connection ends; mitmproxy would go on collecting."""
    exchange = Exchange(opts, HTTPMode.transparent)

    exchange.driver.receive(b"GET /v2/ HTTP/1.1\r\nX: ")
    for _ in range(8):
        exchange.driver.receive(b"x" * (HEAD_LIMIT_BYTES // 4))

    assert exchange.driver.sent.count(b"HTTP/1.1 431 ") == 1
    assert exchange.driver.closed
    assert exchange.flows == []


async def test_a_head_below_the_limit_is_read(opts: options.Options) -> None:
    """Some tokens take 100 kB."""
    exchange = Exchange(opts, HTTPMode.transparent, on_headers=refuse)

    exchange.driver.receive(
        b"GET /v2/ HTTP/1.1\r\nHost: quay.io\r\nAuthorization: Bearer " + b"x" * 100_000 + b"\r\n\r\n"
    )

    assert len(exchange.flows) == 1
    assert exchange.driver.sent.startswith(b"HTTP/1.1 405 ")


class WarmStub:
    """Answers what it is told to, and notes how it ended."""

    def __init__(self, content: bytes | FileBody | None) -> None:
        self._content = content
        self.asked: list[Asked] = []
        self.ended: list[Sent] = []

    def intercepts(self, host: str, port: int, _client_ip: str) -> bool:
        """Not asked behind a CONNECT."""
        raise AssertionError(f"{host}:{port}")

    def answer(self, asked: Asked) -> WarmAnswer | None:
        """Answer, or leave it to the hooks."""
        self.asked.append(asked)
        if self._content is None:
            return None
        return WarmAnswer(200, {"content-length": "10"}, self._content, None)

    def sent(self, asked: Asked, answer: WarmAnswer, sent: Sent) -> None:
        """Take note."""
        assert asked is self.asked[-1]
        assert answer.status == 200
        self.ended.append(sent)


class TestWarmReads:
    """A connection that was handed over goes on answering them."""

    async def test_an_answer_at_hand_runs_no_hook(self, opts: options.Options) -> None:
        """Request after request on one connection, each told when it has been sent."""
        warm = WarmStub(b"0123456789")
        exchange = Exchange(opts, HTTPMode.transparent, warm=warm)

        exchange.driver.receive(GET)
        exchange.driver.receive(GET)

        assert exchange.driver.hooks() == []
        assert exchange.driver.sent == b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789" * 2
        assert warm.ended == [Sent(10, None)] * 2
        assert (warm.asked[0].host, warm.asked[0].port, warm.asked[0].client_ip) == ("quay.io", 443, "192.0.2.7")
        assert not exchange.driver.closed

    async def test_a_file_at_hand_needs_the_sender_alone(self, opts: options.Options, fd: int) -> None:
        """The file is closed when it has been sent."""
        body = FileBody(os.dup(fd), 0, 10)
        warm = WarmStub(body)
        exchange = Exchange(opts, HTTPMode.transparent, warm=warm)

        exchange.driver.receive(GET)

        assert exchange.driver.hooks() == ["registry_send_body"]
        assert warm.ended == [Sent(10, None)]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(body.fd)
        os.close(fd)

    async def test_a_file_that_fails_cuts_the_connection(self, opts: options.Options, fd: int) -> None:
        """As on the way of the hooks; a sender that did not even begin counts as failed."""
        warm = WarmStub(FileBody(os.dup(fd), 0, 10))
        exchange = Exchange(opts, HTTPMode.transparent, warm=warm, on_send=lambda _: None)

        exchange.driver.receive(GET)

        assert exchange.driver.closed
        assert warm.ended[0].error is not None
        os.close(fd)

    async def test_what_is_not_at_hand_takes_the_way_of_the_hooks(self, opts: options.Options) -> None:
        """From the start, as if nobody had been asked; afterwards the next is asked for again."""
        warm = WarmStub(None)
        exchange = Exchange(opts, HTTPMode.transparent, warm=warm, on_headers=refuse)

        exchange.driver.receive(GET)
        exchange.driver.receive(GET)

        assert len(warm.asked) == 2
        assert exchange.driver.hooks()[0] == "requestheaders"
        assert exchange.driver.sent.count(b"HTTP/1.1 405 ") == 2

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"PUT /v2/ HTTP/1.1\r\nHost: quay.io\r\nContent-Length: 0\r\n\r\n",
            GET + GET,
            GET + b"G",
            GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ],
        ids=["a write", "two at once", "more than one", "the last one"],
    )
    async def test_other_requests_are_not_shown_to_it(self, opts: options.Options, request_bytes: bytes) -> None:
        """They are the hooks' business."""
        warm = WarmStub(b"0123456789")
        exchange = Exchange(opts, HTTPMode.transparent, warm=warm, on_headers=refuse)

        exchange.driver.receive(request_bytes)

        assert warm.asked == []
        assert exchange.driver.hooks()[0] == "requestheaders"

    async def test_a_request_in_the_middle_of_another_is_not_shown_to_it(self, opts: options.Options) -> None:
        """What follows an unfinished head belongs to that head."""
        warm = WarmStub(b"0123456789")
        exchange = Exchange(opts, HTTPMode.transparent, warm=warm, on_headers=refuse)

        exchange.driver.receive(b"PUT /v2/ HTTP/1.1\r\nHost: quay.io\r\nX: ")
        exchange.driver.receive(GET)

        assert warm.asked == []
