"""Tunnels through another proxy: opened by its word, and no byte of either side lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.test import taddons

from regproxy.engine.connect_layer import (
    ConnectLayer,
    RegistryConnectHook,
    Tunnel,
    TunnelServer,
    Via,
    connect_head,
)
from regproxy.engine.request_head import CONNECT_LIMIT_BYTES
from unit.engine.layer_driver import LayerDriver, new_context

PROXY = ("192.0.2.20", 3128)
VIA = Via("http://proxy.test:3128", connect_head("quay.io", 443, "Basic c2VjcmV0"))
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(scope="module")
def opts() -> options.Options:
    with taddons.context(Proxyserver()) as ctx:
        made: options.Options = ctx.options
        return made


class Tunnelling:
    """A client whose CONNECT goes through another proxy, which has not answered yet."""

    def __init__(self, opts: options.Options, early: bytes = b"") -> None:
        self.driver = LayerDriver(ConnectLayer(new_context(opts)), self._on_hook)
        self.driver.receive(b"CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io:443\r\n\r\n" + early)
        opened = [each.connection for each in self.driver.commands if isinstance(each, commands.OpenConnection)]
        (self.server,) = opened

    @staticmethod
    def _on_hook(hook: commands.StartHook) -> None:
        if isinstance(hook, RegistryConnectHook):
            hook.connect.verdict = Tunnel((PROXY,), VIA)

    def answer(self, received: bytes) -> None:
        """Let the other proxy send bytes."""
        self.driver.feed(events.DataReceived(self.server, received))

    @property
    def is_open(self) -> bool:
        """Whether the client has its tunnel."""
        return isinstance(self.driver.layer.context.layers[-1], TCPLayer)


def test_the_other_proxy_is_asked_with_its_login(opts: options.Options) -> None:
    """The client hears nothing before it has answered."""
    tunnelling = Tunnelling(opts)

    assert isinstance(tunnelling.server, TunnelServer)
    assert tunnelling.driver.sent_to(tunnelling.server) == (
        b"CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io:443\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n"
    )
    assert tunnelling.driver.sent == b""
    assert "c2VjcmV0" not in repr(VIA)


def test_an_address_is_written_in_brackets() -> None:
    """RFC 9112 section 3.2.3: the authority-form."""
    assert connect_head("fd00::1", 443, None) == b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\n\r\n"


@given(cut=st.integers(1, 60), early=st.binary(max_size=5), late=st.binary(max_size=5))
def test_its_yes_opens_the_tunnel(opts: options.Options, cut: int, early: bytes, late: bytes) -> None:
    """In whatever pieces it comes, with what either side has sent early."""
    answer = b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n" + late
    tunnelling = Tunnelling(opts, early)
    tunnelling.answer(answer[:cut])
    if answer[cut:]:
        tunnelling.answer(answer[cut:])

    assert tunnelling.is_open
    assert tunnelling.driver.sent == ESTABLISHED + late
    assert tunnelling.driver.sent_to(tunnelling.server).partition(b"\r\n\r\n")[2] == early


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"refused the tunnel (407)"),
        (b"SSH-2.0\r\n\r\n", b"refused the tunnel (no HTTP)"),
        (b"x" * (CONNECT_LIMIT_BYTES + 1), b"refused the tunnel (no HTTP)"),
    ],
)
def test_its_no_is_502(opts: options.Options, answer: bytes, words: bytes) -> None:
    """In the name of the other proxy."""
    tunnelling = Tunnelling(opts)
    tunnelling.answer(answer)

    assert tunnelling.driver.sent.startswith(b"HTTP/1.1 502 ")
    assert b"http://proxy.test:3128 " + words in tunnelling.driver.sent
    assert tunnelling.driver.closed


def test_a_proxy_that_hangs_up_is_502(opts: options.Options) -> None:
    """The client is told, not left waiting."""
    tunnelling = Tunnelling(opts)
    tunnelling.driver.feed(events.ConnectionClosed(tunnelling.server))

    assert b"http://proxy.test:3128 closed the connection" in tunnelling.driver.sent


def test_a_client_that_leaves_takes_the_connection_with_it(opts: options.Options) -> None:
    """Nobody waits for the answer any more."""
    tunnelling = Tunnelling(opts)
    tunnelling.driver.feed(events.ConnectionClosed(tunnelling.driver.client))

    closed = [each.connection for each in tunnelling.driver.commands if isinstance(each, commands.CloseConnection)]
    assert tunnelling.server in closed
