"""A server of `WarmConnection`s on loopback, what it is asked and what it hands over, and clients that do as told."""

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.test import taddons

from regproxy.engine.authority import Authority
from regproxy.engine.bodies import FileBody, Sent
from regproxy.engine.certificates import Certificates
from regproxy.engine.sender import BodySender
from regproxy.engine.warm import Asked, WarmAnswer
from regproxy.engine.warm_connection import CONNECT_ANSWER, HandedOver, Reception, WarmConnection
from unit.engine.tls_pair import TlsClient

HOST = "quay.io"
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()

SOCKET_BUFFER_BYTES = 32 * 1024
"""What the kernel may hold of a body that nobody reads; it doubles it."""

FOREVER_S = 3600.0

SOON_S = 0.03

CONTENT = random.Random(7).randbytes(3_000_000)  # noqa: S311 - not a secret
"""What `/file` is."""


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged at WARNING or above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def get(target: str, *fields: str, method: str = "GET") -> bytes:
    """Return a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {HOST}", *fields, "", ""]).encode()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; the test's own time limit is the only one."""
    while not condition():  # noqa: ASYNC110 - what changes has no event
        await asyncio.sleep(0.001)


class Reads:
    """`engine.warm.WarmReads` that answers `/small`, `/large`, `/file` and `/part`, and fails at `/error`."""

    def __init__(self, file: Path, size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self.large = b"L" * 1_000_000
        self.asked: list[Asked] = []
        self.ended: list[tuple[str, Sent]] = []
        self.bodies: list[FileBody] = []
        """All that were given out; they must be closed, not only forgotten."""

    def intercepts(self, host: str, port: int) -> bool:
        """Only one registry is listed."""
        return (host, port) == (HOST, 443)

    def answer(self, asked: Asked) -> WarmAnswer | None:
        """Answer by the target."""
        self.asked.append(asked)
        content: bytes | FileBody
        match asked.head.target.removeprefix("/v2"):
            case "/small":
                content = b"small"
            case "/large":
                content = self.large
            case "/file":
                content = self._body(0, self._size_bytes)
            case "/part":
                content = self._body(1000, 300_000)
            case "/error":
                raise ValueError("the answering is broken")
            case _:
                return None
        length_bytes = content.length_bytes if isinstance(content, FileBody) else len(content)
        if asked.head.method == "HEAD":
            content = b""
        return WarmAnswer(200, {"content-length": str(length_bytes)}, content, None)

    def sent(self, asked: Asked, _answer: WarmAnswer, sent: Sent) -> None:
        """Note how it ended."""
        self.ended.append((asked.head.target, sent))

    @property
    def targets(self) -> list[str]:
        """What was asked, in order."""
        return [asked.head.target for asked in self.asked]

    def _body(self, start: int, end: int) -> FileBody:
        self.bodies.append(FileBody(os.open(self._file, os.O_RDONLY), start, end))
        return self.bodies[-1]


class Observed(WarmConnection):
    """Counts what has arrived, and knows when it is over."""

    received_bytes = 0
    is_lost = False

    def buffer_updated(self, nbytes: int) -> None:
        """See `WarmConnection`."""
        self.received_bytes += nbytes
        super().buffer_updated(nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `WarmConnection`."""
        self.is_lost = True
        super().connection_lost(exc)

    @property
    def unsent_bytes(self) -> int:
        """What waits in the transport."""
        return self._transport.get_write_buffer_size()


@dataclass(frozen=True)
class Taken:
    """A connection that was handed over."""

    transport: asyncio.Transport
    handed_over: HandedOver
    reader: asyncio.StreamReader


class Client:
    """One client, which reads and writes when told to."""

    def __init__(self, sock: socket.socket, authority: Authority) -> None:
        self.sock = sock
        self.tls = TlsClient(HOST, authority)
        self._plaintext = b""

    async def send(self, received: bytes) -> None:
        """Send bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.sock, received)

    async def recv(self) -> bytes:
        """Receive what there is, b"" at the end."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
        except ConnectionResetError:
            return b""

    async def connect(self) -> None:
        """Send a CONNECT and read its answer."""
        await self.send(CONNECT)
        await self.expect_connected()

    async def expect_connected(self) -> None:
        """Read the answer to a CONNECT."""
        received = b""
        while len(received) < len(CONNECT_ANSWER):
            piece = await self.recv()
            assert piece
            received += piece
        assert received == CONNECT_ANSWER

    async def shake_hands(self, received: bytes = b"") -> None:
        """Make TLS. Raises ssl.SSLError."""
        await self.send(self.tls.step(received))
        while not self.tls.connected:
            piece = await self.recv()
            assert piece, "the connection ended in the handshake"
            await self.send(self.tls.step(piece))

    async def ask(self, *requests: bytes) -> None:
        """Send requests in one TLS record."""
        await self.send(self.tls.encrypt(b"".join(requests)))

    async def response(self) -> tuple[bytes, bytes]:
        """Return head and body of the next answer, whose length is in its head."""
        while b"\r\n\r\n" not in self._plaintext:
            await self.read()
        head, _, self._plaintext = self._plaintext.partition(b"\r\n\r\n")
        length_bytes = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        pieces = [self._plaintext]
        while sum(map(len, pieces)) < length_bytes:
            self._plaintext = b""
            await self.read()
            pieces.append(self._plaintext)
        received = b"".join(pieces)
        self._plaintext = received[length_bytes:]
        return head, received[:length_bytes]

    async def body(self) -> bytes:
        """Return the body of the next answer."""
        return (await self.response())[1]

    async def end(self) -> bytes:
        """Read to the end of the connection, and return the plaintext that came."""
        while piece := await self.recv():
            self._plaintext += self.tls.decrypt(piece)
        return self._plaintext

    def say_goodbye(self) -> bytes:
        """Return our end of TLS."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.tls.unwrap()
        return self.tls.encrypted()

    async def read(self) -> bytes:
        """Return all plaintext that has come and was not taken yet, and at least one piece."""
        piece = await self.recv()
        assert piece, f"the connection ended after {self._plaintext[:200]!r}"
        self._plaintext += self.tls.decrypt(piece)
        return self._plaintext


class Stage:
    """The server."""

    def __init__(self, reads: Reads, reception: Reception, authority: Authority, sender: BodySender) -> None:
        self.reads = reads
        self.reception = reception
        self.sender = sender
        self.taken: list[Taken] = []
        self.connections: list[Observed] = []
        self.loop_errors: list[dict[str, Any]] = []
        self._authority = authority
        self._address: tuple[str, int] = ("", 0)
        self._cleanup = contextlib.AsyncExitStack()

    def limit(self, **limits_s: float) -> None:
        """Set time limits for the connections to come."""
        self.reception = replace(self.reception, **limits_s)  # type: ignore[arg-type]

    async def client(self) -> Client:
        """Return a client that has connected, and nothing more."""
        sock = socket.socket()
        self._cleanup.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count = len(self.connections)
        await asyncio.get_running_loop().sock_connect(sock, self._address)
        await until(lambda: len(self.connections) > count)
        return Client(sock, self._authority)

    async def established(self) -> Client:
        """Return a client with TLS."""
        client = await self.client()
        await client.connect()
        await client.shake_hands()
        return client

    @property
    def last(self) -> Observed:
        """The server's end of the newest connection."""
        return self.connections[-1]

    def hand_over(self, transport: asyncio.Transport, handed_over: HandedOver) -> None:
        """Go on as mitmproxy does: with a stream."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self.taken.append(Taken(transport, handed_over, reader))
        self._cleanup.callback(transport.abort)

    def _begin(self) -> Observed:
        connection = Observed(self.reception, self.hand_over)
        self.connections.append(connection)
        return connection

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen; at the end all clients leave, and the server sees it."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._address = listening.getsockname()
        server = await loop.create_server(self._begin, sock=listening)
        async with self._cleanup:
            yield
        handed_over = {id(taken.transport) for taken in self.taken}
        await until(lambda: all(each.is_lost or id(each._transport) in handed_over for each in self.connections))
        await asyncio.sleep(0)
        server.close()
        await server.wait_closed()


@contextlib.contextmanager
def descriptors_unchanged() -> Iterator[None]:
    """Fail when more file descriptors are open afterwards than before."""
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    yield
    assert {entry.name for entry in Path("/proc/self/fd").iterdir()} <= before


@contextlib.asynccontextmanager
async def running_stage(directory: Path, certificates: Certificates, authority: Authority) -> AsyncIterator[Stage]:
    """Yield a stage; it must leave no task, no timer, no descriptor and no complaint."""
    (directory / "blob").write_bytes(CONTENT)
    reads, sender = Reads(directory / "blob", len(CONTENT)), BodySender()
    sender.stall_limit_s = FOREVER_S
    reception = Reception(reads, certificates.context_for, sender, FOREVER_S, FOREVER_S, FOREVER_S)
    stage = Stage(reads, reception, authority, sender)
    loop = asyncio.get_running_loop()
    with taddons.context(), descriptors_unchanged():
        sender.running()
        async with stage.open():
            yield stage
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]
        sender.done()
    assert stage.loop_errors == []
