"""The client's TLS while it is lent to a sender: nothing is read, nothing is lost."""

import pytest
from mitmproxy import connection, options
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import TlsStartClientHook

from regproxy.engine.authority import Authority
from regproxy.engine.certificates import Certificates
from regproxy.engine.client_tls import InterceptedTlsLayer
from unit.engine.layer_driver import LayerDriver, new_context
from unit.engine.tls_pair import TlsClient


class Recorder(layer.Layer):
    """The layer inside TLS: it writes down what it is given."""

    def __init__(self, layer_context: context.Context) -> None:
        super().__init__(layer_context)
        self.seen: list[bytes | str] = []

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        match event:
            case events.DataReceived():
                self.seen.append(event.data)
            case events.ConnectionClosed():
                self.seen.append("closed")
            case events.Wakeup():
                self.seen.append("woken")
            case _:
                pass
        yield from ()


class Session:
    """A handshaken connection through the layer."""

    def __init__(self, certificates: Certificates, authority: Authority, opts: options.Options) -> None:
        ctx = new_context(opts)
        ctx.server.address = ("quay.io", 443)
        self.layer = InterceptedTlsLayer(ctx)
        self.inner = Recorder(ctx)
        self.layer.child_layer = self.inner

        def on_hook(hook: commands.StartHook) -> None:
            if isinstance(hook, TlsStartClientHook):
                certificates.tls_start_client(hook.data)

        self.driver = LayerDriver(self.layer, on_hook)
        self.client = TlsClient("quay.io", authority)
        taken = 0
        to_server = self.client.step()
        while to_server:
            self.driver.receive(to_server)
            fresh, taken = self.driver.sent[taken:], len(self.driver.sent)
            to_server = self.client.step(fresh)
        assert self.client.connected

    def send(self, plaintext: bytes) -> None:
        """Let the client send something."""
        self.driver.receive(self.client.encrypt(plaintext))

    def close(self) -> None:
        """Let the client close its end."""
        self.driver.client.state &= ~connection.ConnectionState.CAN_READ
        self.driver.feed(events.ConnectionClosed(self.driver.client))

    def any_event(self) -> None:
        """Give the layer an event that has nothing to do with the client, as the end of a hook is."""
        self.driver.feed(events.Wakeup(commands.RequestWakeup(0)))


@pytest.fixture
async def session(certificates: Certificates, authority: Authority, opts: options.Options) -> Session:
    return Session(certificates, authority, opts)


async def test_what_the_client_sends_arrives(session: Session) -> None:
    """Not lent, it is mitmproxy's layer."""
    session.send(b"GET / HTTP/1.1\r\n")

    assert session.inner.seen == [b"GET / HTTP/1.1\r\n"]


async def test_nothing_is_read_while_lent(session: Session) -> None:
    """Bytes and close wait, in order, and are read at the first event after the return."""
    session.layer.lend()
    session.send(b"one ")
    session.send(b"two ")
    session.any_event()
    session.close()
    assert session.inner.seen == ["woken"]

    session.layer.give_back()
    assert session.inner.seen == ["woken"]
    session.any_event()

    assert b"".join(seen for seen in session.inner.seen if isinstance(seen, bytes)) == b"one two "
    assert session.inner.seen[-1] == "closed"


async def test_what_was_held_comes_before_what_follows(session: Session) -> None:
    """The event that wakes the layer may itself be bytes: they are later ones."""
    session.layer.lend()
    session.send(b"first ")
    session.layer.give_back()
    session.send(b"second")

    assert b"".join(seen for seen in session.inner.seen if isinstance(seen, bytes)) == b"first second"


async def test_it_can_be_lent_again(session: Session) -> None:
    """One connection carries many bodies; nothing is delivered twice."""
    for number in range(3):
        session.layer.lend()
        session.send(b"%d" % number)
        session.layer.give_back()
        session.any_event()

    assert [seen for seen in session.inner.seen if seen != "woken"] == [b"0", b"1", b"2"]
