"""Sending a file body: in order, as it is released, without holding a thread, and always with an end."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mitmproxy import connection, options
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.server import ConnectionIO
from mitmproxy.test import taddons

from regproxy.engine import sender as sender_module
from regproxy.engine.authority import Authority
from regproxy.engine.bodies import FileBody, Released
from regproxy.engine.certificates import Certificates
from regproxy.engine.channel import CHUNK_BYTES
from regproxy.engine.client_tls import InterceptedTlsLayer
from regproxy.engine.http_layer import Transfer
from regproxy.engine.sender import BodySender
from unit.engine.layer_driver import new_context
from unit.engine.test_certificates import now
from unit.engine.tls_pair import TlsClient, accept, pending, shake_hands

CONTENT = random.Random(7).randbytes(3_000_000)  # noqa: S311 - not a secret


class ProxyserverStub:
    """The part of mitmproxy's addon that knows the connections."""

    name = "proxyserver"

    def __init__(self) -> None:
        self.connections: dict[str, SimpleNamespace] = {}


class Peer:
    """A client: our writer to it as mitmproxy holds it, and its own end."""

    def __init__(self, client: connection.Client, writer: asyncio.StreamWriter, far: socket.socket) -> None:
        self.client = client
        self.writer = writer
        self.far = far

    async def read(self, count: int) -> bytes:
        """Receive exactly so many bytes."""
        received = bytearray()
        while len(received) < count:
            piece = await asyncio.get_running_loop().sock_recv(self.far, min(1 << 18, count - len(received)))
            assert piece, f"the connection ended after {len(received)} of {count} bytes"
            received += piece
        return bytes(received)

    def nothing_to_read(self) -> bool:
        """Whether no byte is waiting."""
        try:
            return not self.far.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True


class Stage:
    """A running sender and its clients."""

    def __init__(
        self, sender: BodySender, proxyserver: ProxyserverStub, file: Path, streams: contextlib.AsyncExitStack
    ) -> None:
        self.sender = sender
        self._proxyserver = proxyserver
        self._file = file
        self._streams = streams

    async def connect(self) -> Peer:
        """Make a client."""
        near, far = socket.socketpair()
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self._streams.callback(far.close)
        reader, writer = await asyncio.open_connection(sock=near)
        self._streams.push_async_callback(self._end, writer)
        client = connection.Client(
            peername=("192.0.2.7", 4711), sockname=("192.0.2.1", 3128), state=ConnectionState.OPEN
        )
        transports = {client: ConnectionIO(reader=reader, writer=writer)}
        self._proxyserver.connections[client.id] = SimpleNamespace(transports=transports)
        return Peer(client, writer, far)

    @staticmethod
    async def _end(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def transfer(
        self,
        peer: Peer,
        start: int = 0,
        end: int = len(CONTENT),
        released: Released | None = None,
        tls_layer: InterceptedTlsLayer | None = None,
    ) -> Transfer:
        """Describe a body of the file for a client."""
        body = FileBody(os.open(self._file, os.O_RDONLY), start, end, released)
        return Transfer(peer.client, body, tls_layer)

    def forget(self, peer: Peer) -> None:
        """Let mitmproxy have no such connection any more."""
        del self._proxyserver.connections[peer.client.id]


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Yield a sender with a single thread."""
    monkeypatch.setattr(sender_module, "THREADS", 1)
    (tmp_path / "blob").write_bytes(CONTENT)
    proxyserver, sender = ProxyserverStub(), BodySender()
    async with contextlib.AsyncExitStack() as streams:
        with taddons.context(proxyserver):
            sender.running()
            yield Stage(sender, proxyserver, tmp_path / "blob", streams)
            sender.done()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; the test's own time limit is the only one."""
    while not condition():  # noqa: ASYNC110 - what changes has no event
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("start", "end"), [(0, len(CONTENT)), (0, 1), (17, 2_000_000), (len(CONTENT) - 1, len(CONTENT))]
)
async def test_a_body_arrives(stage: Stage, start: int, end: int) -> None:
    """Whole or in part; the transfer says how much was sent and that nothing went wrong."""
    peer = await stage.connect()
    transfer = stage.transfer(peer, start, end)

    _, received = await asyncio.gather(stage.sender.registry_send_body(transfer), peer.read(end - start))

    assert received == CONTENT[start:end]
    assert (transfer.outcome.body_bytes, transfer.outcome.error) == (end - start, None)


async def test_what_mitmproxy_has_still_to_send_comes_first(stage: Stage) -> None:
    """The headers may wait in the transport's buffer when the body begins."""
    peer = await stage.connect()
    headers = b"H" * 500_000
    peer.writer.write(headers)
    assert peer.writer.transport.get_write_buffer_size() > 0
    transfer = stage.transfer(peer, 0, 1000)

    _, received = await asyncio.gather(stage.sender.registry_send_body(transfer), peer.read(len(headers) + 1000))

    assert received == headers + CONTENT[:1000]


async def test_slow_clients_hold_no_thread(stage: Stage) -> None:
    """Five clients that take nothing, one thread: the sixth gets its body all the same."""
    slow = [await stage.connect() for _ in range(5)]
    transfers = [stage.transfer(peer) for peer in slow]
    sending = [asyncio.ensure_future(stage.sender.registry_send_body(transfer)) for transfer in transfers]
    await until(lambda: not any(peer.nothing_to_read() for peer in slow))
    quick = await stage.connect()
    transfer = stage.transfer(quick)

    _, received = await asyncio.gather(stage.sender.registry_send_body(transfer), quick.read(len(CONTENT)))

    assert received == CONTENT
    assert not any(task.done() for task in sending)
    assert all([await peer.read(len(CONTENT)) == CONTENT for peer in slow])
    await asyncio.gather(*sending)
    assert [transfer.outcome.error for transfer in transfers] == [None] * 5


async def test_a_client_that_takes_nothing_is_cut_off(stage: Stage) -> None:
    """After the time it is allowed, its transfer ends with the reason."""
    stage.sender.stall_limit_s = 0.05
    peer = await stage.connect()
    transfer = stage.transfer(peer)

    await stage.sender.registry_send_body(transfer)

    assert transfer.outcome.error == "the client took no byte for 0.05 s"
    assert 0 < transfer.outcome.body_bytes < len(CONTENT)


async def test_a_growing_file_is_sent_as_it_is_released(stage: Stage) -> None:
    """Each release goes out at once, nothing goes out before it, and the positions asked for never go back."""
    peer = await stage.connect()
    limit_bytes = 0
    more, waiting = asyncio.Event(), asyncio.Event()
    asked: list[int] = []

    async def released(position: int) -> int:
        asked.append(position)
        while limit_bytes <= position:
            waiting.set()
            await more.wait()
            more.clear()
        return limit_bytes

    transfer = stage.transfer(peer, released=released)
    sending = asyncio.ensure_future(stage.sender.registry_send_body(transfer))
    position = 0
    for end in (1, 500, CHUNK_BYTES * 2 + 3, len(CONTENT)):
        await waiting.wait()
        waiting.clear()
        assert peer.nothing_to_read()
        limit_bytes = end
        more.set()
        assert await peer.read(end - position) == CONTENT[position:end]
        position = end
    await sending

    assert asked == sorted(asked)
    assert (transfer.outcome.body_bytes, transfer.outcome.error) == (len(CONTENT), None)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ValueError("the content hashes to something else"), "the content hashes to something else"),
        (KeyError(), "KeyError"),
    ],
)
async def test_a_release_that_fails_ends_the_transfer(stage: Stage, failure: Exception, said: str) -> None:
    """Nothing is raised, which would hang the client; the reason is noted, and so is what was sent."""
    peer = await stage.connect()

    async def released(position: int) -> int:
        if position == 0:
            return 1000
        raise failure

    transfer = stage.transfer(peer, released=released)
    await stage.sender.registry_send_body(transfer)

    assert transfer.outcome.error == said
    assert transfer.outcome.body_bytes == 1000
    assert await peer.read(1000) == CONTENT[:1000]
    assert peer.nothing_to_read()


async def test_a_stored_file_that_is_too_short_is_said_loudly(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has touched the cache: one line at ERROR, and the client's transfer ends."""
    os.truncate(tmp_path / "blob", 1000)
    peer = await stage.connect()
    transfer = stage.transfer(peer)

    await stage.sender.registry_send_body(transfer)

    assert transfer.outcome.error == f"the stored file ends at 1000, before {len(CONTENT)}"
    (record,) = [record for record in caplog.records if record.name.startswith("regproxy")]
    assert (record.levelname, record.exc_info) == ("ERROR", None)


@pytest.mark.parametrize("moment", ["before", "forgotten", "closing", "in the middle"])
async def test_a_client_that_has_gone_ends_the_transfer(stage: Stage, moment: str) -> None:
    """Whenever it goes, and whoever has noticed."""
    peer = await stage.connect()
    transfer = stage.transfer(peer)
    match moment:
        case "before":
            peer.far.close()
        case "forgotten":
            stage.forget(peer)
        case "closing":
            peer.writer.close()
        case _:
            pass
    sending = asyncio.ensure_future(stage.sender.registry_send_body(transfer))
    if moment == "in the middle":
        await peer.read(100_000)
        peer.far.close()

    await sending

    assert transfer.outcome.error is not None
    assert transfer.outcome.error.startswith("the client has gone (")
    assert transfer.outcome.body_bytes < len(CONTENT)


async def test_the_client_is_not_read_while_a_body_is_sent(stage: Stage) -> None:
    """A pipelined request waits in the socket, and is read afterwards."""
    peer = await stage.connect()
    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def released(_position: int) -> int:
        return await gate

    transfer = stage.transfer(peer, 0, 10, released)
    sending = asyncio.ensure_future(stage.sender.registry_send_body(transfer))
    await asyncio.sleep(0)
    transport = peer.writer.transport
    assert isinstance(transport, asyncio.Transport)
    assert not transport.is_reading()
    gate.set_result(10)
    await sending

    assert transport.is_reading()


@pytest.mark.parametrize("fails", [False, True])
async def test_the_clients_tls_is_lent_for_the_transfer_alone(
    stage: Stage, certificates: Certificates, authority: Authority, fails: bool
) -> None:
    """The body comes encrypted by the connection that the handshake was made on; it is given back in any case."""
    peer = await stage.connect()
    tls, server = TlsClient("quay.io", authority), accept(certificates.context_for("quay.io", now()))
    shake_hands(tls, server)
    tls.decrypt(pending(server))
    layer = InterceptedTlsLayer(new_context(options.Options()))
    layer.tls = server
    lent: list[bool] = []

    async def released(_position: int) -> int:
        lent.append(layer._lent)
        if fails:
            raise ValueError("no more")
        return len(CONTENT)

    transfer = stage.transfer(peer, released=released, tls_layer=layer)
    sending: Awaitable[None] = asyncio.ensure_future(stage.sender.registry_send_body(transfer))
    received = bytearray()
    while not fails and len(received) < len(CONTENT):
        received += tls.decrypt(await asyncio.get_running_loop().sock_recv(peer.far, 1 << 18))
    await sending

    assert received == (b"" if fails else CONTENT)
    assert set(lent) == {True}
    assert not layer._lent
    assert transfer.outcome.error == ("no more" if fails else None)
