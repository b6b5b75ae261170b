"""CONNECT: asked about once, answered as decided, and no byte of the client lost on the way."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import connection, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.tls import TlsStartClientHook
from mitmproxy.test import taddons

from regproxy.engine.authority import Authority
from regproxy.engine.certificates import Certificates
from regproxy.engine.client_tls import InterceptedTlsLayer
from regproxy.engine.connect_layer import (
    ConnectLayer,
    ConnectRequest,
    Intercept,
    Refuse,
    RegistryConnectHook,
    Tunnel,
    Verdict,
)
from regproxy.engine.http_layer import RegistryHttpLayer
from regproxy.engine.request_head import CONNECT_LIMIT_BYTES
from unit.engine.layer_driver import LayerDriver, new_context
from unit.engine.tls_pair import TlsClient

HEAD = b"CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io:443\r\nUser-Agent: skopeo\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
ADDRESSES = (("192.0.2.10", 443), ("192.0.2.11", 443))


class Connecting:
    """A connection that has not said anything yet, and the verdict that its CONNECT will get."""

    def __init__(
        self,
        opts: options.Options,
        verdict: Verdict | None,
        certificates: Certificates | None = None,
        failures: dict[object, str] | None = None,
    ) -> None:
        self.asked: list[ConnectRequest] = []
        self.requests: list[str] = []
        self._verdict = verdict
        self._certificates = certificates
        self.driver = LayerDriver(ConnectLayer(new_context(opts)), self._on_hook, failures)

    def _on_hook(self, hook: commands.StartHook) -> None:
        match hook:
            case RegistryConnectHook():
                self.asked.append(hook.connect)
                if self._verdict is not None:
                    hook.connect.verdict = self._verdict
            case TlsStartClientHook() if self._certificates is not None:
                self._certificates.tls_start_client(hook.data)
            case HttpRequestHeadersHook():
                self.requests.append(hook.flow.request.url)
            case _:
                pass

    @property
    def inside(self) -> object:
        """The layer that the connection has ended up with."""
        return self.driver.layer.context.layers[2] if len(self.driver.layer.context.layers) > 2 else None


async def test_the_stack_is_asked_with_what_the_client_wants(opts: options.Options) -> None:
    """Host, port, client and the head's fields."""
    connecting = Connecting(opts, Intercept())

    connecting.driver.receive(HEAD)

    (asked,) = connecting.asked
    assert (asked.host, asked.port) == ("quay.io", 443)
    assert asked.client is connecting.driver.client
    assert asked.request.headers["user-agent"] == "skopeo"


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
async def test_a_head_in_two_pieces_is_one_head(opts: options.Options, cut: int) -> None:
    """Wherever the network cuts it, the stack is asked once, and not before the end."""
    connecting = Connecting(opts, Intercept())

    connecting.driver.receive(HEAD[:cut])
    assert connecting.asked == []
    connecting.driver.receive(HEAD[cut:])

    assert len(connecting.asked) == 1
    assert connecting.driver.sent == ESTABLISHED


async def test_a_client_may_send_its_tls_with_the_head(
    opts: options.Options, certificates: Certificates, authority: Authority
) -> None:
    """Bytes behind the head are the first of the tunnel, also when they come while the stack decides."""
    connecting = Connecting(opts, Intercept(), certificates)
    client = TlsClient("quay.io", authority)
    hello = client.step()

    connecting.driver.holding = True
    connecting.driver.receive(HEAD + hello[:2])
    connecting.driver.receive(hello[2:50])
    connecting.driver.receive(hello[50:])
    assert connecting.driver.sent == b""
    connecting.driver.release()

    assert isinstance(connecting.inside, InterceptedTlsLayer)
    taken = len(ESTABLISHED)
    to_server = client.step(connecting.driver.sent[taken:])
    assert client.connected
    connecting.driver.receive(to_server + client.encrypt(b"GET /v2/ HTTP/1.1\r\nHost: quay.io\r\n\r\n"))
    assert connecting.requests == ["https://quay.io/v2/"]


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
async def test_plain_http_inside_the_tunnel_is_read_as_such(cuts: list[int]) -> None:
    """An insecure registry is reached by CONNECT too; head and request may come in any pieces."""
    conversation = HEAD + b"GET /v2/ HTTP/1.1\r\nHost: quay.io\r\n\r\n"
    with taddons.context(Proxyserver()) as running:
        connecting = Connecting(running.options, Intercept())
        borders = sorted({0, len(conversation), *(cut for cut in cuts if cut < len(conversation))})
        for first, last in pairwise(borders):
            connecting.driver.receive(conversation[first:last])

        assert isinstance(connecting.inside, RegistryHttpLayer)
        assert connecting.requests == ["http://quay.io:443/v2/"]
        assert len(connecting.asked) == 1


async def test_a_refusal_says_why_and_ends(opts: options.Options) -> None:
    """The client gets status and reason in an answer of right length, and what it says later is not read."""
    connecting = Connecting(opts, Refuse(403, "127.0.0.1 is a loopback address; list it"))

    connecting.driver.receive(HEAD)
    connecting.driver.receive(HEAD)

    head, _, body = connecting.driver.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert body == b"registry-proxy: 127.0.0.1 is a loopback address; list it\n"
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert connecting.driver.closed
    assert len(connecting.asked) == 1


async def test_a_second_head_behind_a_refused_one_is_not_read(opts: options.Options) -> None:
    """Neither what was sent with it nor what came while the stack decided."""
    connecting = Connecting(opts, Refuse(403, "no"))

    connecting.driver.holding = True
    connecting.driver.receive(HEAD + HEAD)
    connecting.driver.receive(HEAD)
    connecting.driver.release()

    assert len(connecting.asked) == 1
    assert connecting.driver.sent.count(b"HTTP/1.1") == 1


async def test_without_a_verdict_nothing_is_connected(opts: options.Options) -> None:
    """A stack that fails, or is not there, must not make an open proxy."""
    connecting = Connecting(opts, None)

    connecting.driver.receive(HEAD)

    assert connecting.driver.sent.startswith(b"HTTP/1.1 503 ")
    assert connecting.driver.closed
    assert connecting.driver.opened() == []


async def test_a_head_without_end_is_refused(opts: options.Options) -> None:
    """No more than the limit is kept in memory."""
    connecting = Connecting(opts, Intercept())

    connecting.driver.receive(b"CONNECT quay.io:443 HTTP/1.1\r\nX: ")
    connecting.driver.receive(b"x" * CONNECT_LIMIT_BYTES)

    assert connecting.driver.sent.startswith(b"HTTP/1.1 431 ")
    assert connecting.driver.closed
    assert connecting.asked == []


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT quay.io HTTP/1.1\r\n\r\n",
        b"CONNECT quay.io:99999 HTTP/1.1\r\n\r\n",
        b"CONNECT :443 HTTP/1.1\r\n\r\n",
        b"CONNECT quay.io:443\r\n\r\n",
        b"CONNECT quay.io:443 HTTP/1.1\r\nno colon\r\n\r\n",
        b"CONNECT \xff\xfe:443 HTTP/1.1\r\n\r\n",
        b"CONNECT  HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_head_that_is_none_is_refused(opts: options.Options, head: bytes) -> None:
    """A clear 400 and the end, without asking anybody."""
    connecting = Connecting(opts, Intercept())

    connecting.driver.receive(head)

    assert connecting.driver.sent.startswith(b"HTTP/1.1 400 ")
    assert connecting.driver.closed
    assert connecting.asked == []


async def test_a_tunnel_passes_everything_on(opts: options.Options) -> None:
    """The far end gets what came with and after the head, byte for byte, and the client what the far end says."""
    connecting = Connecting(opts, Tunnel(ADDRESSES))

    connecting.driver.receive(HEAD + b"\x16\x03early")
    connecting.driver.receive(b"late")

    server = connecting.driver.layer.context.server
    assert connecting.driver.opened() == [ADDRESSES[0]]
    assert connecting.driver.sent == ESTABLISHED
    assert connecting.driver.sent_to(server) == b"\x16\x03earlylate"
    assert isinstance(connecting.inside, TCPLayer)
    connecting.driver.feed(events.DataReceived(server, b"answer"))
    assert connecting.driver.sent == ESTABLISHED + b"answer"


async def test_a_tunnel_is_not_shown_to_any_addon(opts: options.Options) -> None:
    """What is not intercepted is nobody's business: after the decision no hook runs."""
    connecting = Connecting(opts, Tunnel(ADDRESSES))

    connecting.driver.receive(HEAD + b"secret")

    assert connecting.driver.hooks() == ["registry_connect"]


async def test_the_next_address_is_tried(opts: options.Options) -> None:
    """A host with a dead IPv6 address is reached by its next one."""
    connecting = Connecting(opts, Tunnel(ADDRESSES), failures={ADDRESSES[0]: "unreachable"})

    connecting.driver.receive(HEAD)

    assert connecting.driver.opened() == list(ADDRESSES)
    assert connecting.driver.sent == ESTABLISHED
    assert connecting.driver.layer.context.server.address == ADDRESSES[1]


@pytest.mark.parametrize(("addresses", "reason"), [(ADDRESSES, "connection refused"), ((), "the name has no address")])
async def test_a_host_that_cannot_be_reached_is_a_502(
    opts: options.Options, addresses: tuple[tuple[str, int], ...], reason: str
) -> None:
    """The client learns that the tunnel was not made, and why, instead of a closed connection."""
    connecting = Connecting(opts, Tunnel(addresses), failures=dict.fromkeys(ADDRESSES, "connection refused"))

    connecting.driver.receive(HEAD)

    assert connecting.driver.sent.startswith(b"HTTP/1.1 502 ")
    assert f"quay.io:443: {reason}".encode() in connecting.driver.sent
    assert connecting.driver.closed


@pytest.mark.parametrize("said", [b"", HEAD[:20], HEAD, HEAD + b"\x16"])
async def test_a_client_that_leaves_ends_it(opts: options.Options, said: bytes) -> None:
    """At any point before the tunnel is in use."""
    connecting = Connecting(opts, Intercept())
    if said:
        connecting.driver.receive(said)

    connecting.driver.client.state &= ~connection.ConnectionState.CAN_READ
    connecting.driver.feed(events.ConnectionClosed(connecting.driver.client))

    assert connecting.driver.closed
