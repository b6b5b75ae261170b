"""mitmproxy's side of a hand-over: layers on TLS that is established already."""

import ssl

import pytest
from mitmproxy import connection, options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import HTTPMode
from OpenSSL import SSL

from regproxy.engine.authority import Authority
from regproxy.engine.certificates import Certificates
from regproxy.engine.client_tls import InterceptedTlsLayer
from regproxy.engine.connect_layer import established_layer
from regproxy.engine.http_layer import RegistryHttpLayer
from regproxy.engine.warm import Asked, WarmAnswer
from unit.engine.layer_driver import LayerDriver, new_context
from unit.engine.test_certificates import now
from unit.engine.test_client_tls import Recorder
from unit.engine.tls_pair import TlsClient, accept, pending, shake_hands

HOST = "quay.io"
GET = b"GET /v2/ HTTP/1.1\r\nHost: quay.io\r\n\r\n"


class Peer:
    """A client, and the server's end of TLS with it."""

    def __init__(self, certificates: Certificates, authority: Authority) -> None:
        self.client = TlsClient(HOST, authority)
        self.server: SSL.Connection = accept(certificates.context_for(HOST, now()))
        shake_hands(self.client, self.server)
        self.client.decrypt(pending(self.server))

    def say_goodbye(self) -> None:
        """Let the server's end have read the client's close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.client.tls.unwrap()
        self.server.bio_write(self.client.encrypted())
        with pytest.raises(SSL.ZeroReturnError):
            self.server.recv(1)


@pytest.fixture
def peer(certificates: Certificates, authority: Authority) -> Peer:
    return Peer(certificates, authority)


class Handed:
    """A recording layer on established TLS."""

    def __init__(self, peer: Peer, opts: options.Options, early: bytes) -> None:
        ctx = new_context(opts)
        layer = InterceptedTlsLayer(ctx, peer.server, early)
        self.inner = Recorder(ctx)
        layer.child_layer = self.inner
        self.driver = LayerDriver(layer, lambda _: None)

    def turn(self) -> None:
        """Let the loop turn: the wakeup that was asked for comes."""
        (wakeup,) = [each for each in self.driver.commands if isinstance(each, commands.RequestWakeup)]
        assert wakeup.delay == 0
        self.driver.feed(events.Wakeup(wakeup))


async def test_what_was_read_before_comes_a_turn_later(peer: Peer, opts: options.Options) -> None:
    """Not while `Start` is handled: mitmproxy's `close_connection` asserts that there is a handler by then."""
    handed = Handed(peer, opts, b"early")
    assert handed.inner.seen == []

    handed.turn()

    assert handed.inner.seen == [b"early"]


async def test_what_was_read_before_comes_before_what_comes_now(peer: Peer, opts: options.Options) -> None:
    """In order, and once; nobody else hears of the wakeup."""
    handed = Handed(peer, opts, b"early")

    handed.driver.receive(peer.client.encrypt(b"now"))
    handed.turn()

    assert handed.inner.seen == [b"early", b"now"]


async def test_nothing_read_before_is_nothing(peer: Peer, opts: options.Options) -> None:
    """No empty event."""
    handed = Handed(peer, opts, b"")
    handed.turn()

    assert handed.inner.seen == []


@pytest.mark.parametrize("early", [b"", b"early"])
async def test_a_goodbye_that_was_read_before_is_passed_on(peer: Peer, opts: options.Options, early: bytes) -> None:
    """Behind the plaintext, once."""
    peer.say_goodbye()
    handed = Handed(peer, opts, early)
    assert handed.inner.seen == []

    handed.turn()
    handed.driver.feed(events.ConnectionClosed(handed.driver.client))

    assert handed.inner.seen == [*([early] if early else []), "closed"]


async def test_both_directions_use_the_same_tls(peer: Peer, opts: options.Options) -> None:
    """And mitmproxy takes it for established."""
    handed = Handed(peer, opts, b"")
    handed.turn()
    handed.driver.receive(peer.client.encrypt(b"request"))
    for command in handed.driver.layer._handle_command(  # type: ignore[attr-defined]
        commands.SendData(handed.driver.client, b"answer")
    ):
        handed.driver.commands.append(command)

    assert handed.inner.seen == [b"request"]
    assert peer.client.decrypt(handed.driver.sent) == b"answer"
    assert handed.driver.client.tls_established
    assert handed.driver.client.alpn == b"http/1.1"


class Always:
    """`WarmReads` that answer everything."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def intercepts(self, _host: str, _port: int, _client_ip: str) -> bool:
        """See `WarmReads`."""
        raise AssertionError

    def answer(self, asked: Asked) -> WarmAnswer | None:
        """See `WarmReads`."""
        self.asked.append(asked)
        return WarmAnswer(200, {"content-length": "4"}, b"warm", None)

    def sent(self, *_: object) -> None:
        """See `WarmReads`."""


async def test_warm_reads_go_on_behind_a_hand_over(peer: Peer, opts: options.Options) -> None:
    """With the authority of the CONNECT, and one HTTP layer, not two."""
    warm, ctx = Always(), new_context(opts)
    driver = LayerDriver(established_layer(ctx, (HOST, 443), peer.server, b"", warm), lambda _: None)
    driver.receive(peer.client.encrypt(GET))

    assert peer.client.decrypt(driver.sent).endswith(b"\r\n\r\nwarm")
    ((asked,), layers) = warm.asked, [type(each).__name__ for each in ctx.layers]
    assert (asked.host, asked.port, asked.client_ip) == (HOST, 443, "192.0.2.7")
    assert layers == ["HttpProxy", "InterceptedTlsLayer", "RegistryHttpLayer"]


async def test_a_registry_that_sends_a_request_is_not_answered_to_the_client(opts: options.Options) -> None:
    """What comes unasked on an idle connection to the registry would be an answer too many for the client."""
    warm, ctx = Always(), new_context(opts)
    ctx.server.address = (HOST, 443)
    driver = LayerDriver(RegistryHttpLayer(ctx, HTTPMode.transparent, warm), lambda _: None)
    driver.receive(GET)
    assert len(warm.asked) == 1
    sent = driver.sent
    unasked = events.DataReceived(connection.Server(address=(HOST, 443)), GET)

    assert list(driver.layer._answer_warm(unasked)) == []  # type: ignore[attr-defined]
    assert (len(warm.asked), driver.sent) == (1, sent)
