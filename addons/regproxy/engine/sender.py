"""Sends file bodies: the handler of `registry_send_body`.

The event loop decides when (bytes have arrived, the socket has room, the client has stalled); a worker thread moves
the bytes (`channel.push`). While a body is sent nothing is read from the client, and the client's OpenSSL connection
belongs to the sender.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from mitmproxy import connection, ctx
from OpenSSL import SSL

from regproxy.engine.bodies import FileBody, Sent
from regproxy.engine.channel import Channel, FileShrankError, PlainChannel, TlsChannel
from regproxy.engine.http_layer import Transfer

logger = logging.getLogger(__name__)

THREADS = max(4, 2 * (os.cpu_count() or 1))
"""Threads that move bytes, of all clients together; each is held only while its client's socket takes bytes."""


class ClientStalledError(Exception):
    """The client took no byte for the time it is allowed."""


class BodySender:
    """The addon that sends file bodies to clients."""

    name = "registry-body-sender"

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self.stall_limit_s = 60.0
        """A client that takes no byte for so long is cut off (`SEND_TIMEOUT`)."""

    def running(self) -> None:
        """Start the worker threads (lazily: none runs until it is needed)."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="send-body")

    def done(self) -> None:
        """Let the threads end; transfers under way are cut by the process's end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def client_disconnected(self, client: connection.Client) -> None:
        """Close the socket: mitmproxy 12.2.3 leaves it open if it was closed while data of the client was waiting."""
        with contextlib.suppress(ConnectionResetError):
            _client_writer(client).close()

    async def registry_send_body(self, transfer: Transfer) -> None:
        """Send the body of a flow's answer. Nothing is raised, for that would hang the client."""
        try:
            transport = cast(asyncio.Transport, _client_writer(transfer.client).transport)
        except ConnectionResetError as error:
            transfer.sent = Sent(0, f"the client has gone ({error})")
            return
        layer = transfer.tls_layer
        if layer is not None:
            layer.lend()
        try:
            transfer.sent = await self.send(transport, None if layer is None else layer.tls, transfer.body)
        finally:
            if layer is not None:
                layer.give_back()

    async def send(self, transport: asyncio.Transport, tls: SSL.Connection | None, body: FileBody) -> Sent:
        """Send a body, behind what waits in the transport and in TLS. Nothing is raised but a cancellation.

        Meanwhile nothing is read from the client, and TLS must not be used by anyone else.
        """
        progress = _Progress(body.start)
        try:
            async with self._channel(transport, tls) as channel:
                await self._send(body, channel, progress)
        except FileShrankError as failure:
            error = str(failure)
            logger.error("%s: the client's connection is cut", error)  # noqa: TRY400 - one line, not a traceback
        except ClientStalledError as failure:
            error = str(failure)
        except OSError as failure:
            error = f"the client has gone ({failure.strerror or failure})"
        except Exception as failure:  # noqa: BLE001 - an ingest may fail for any reason, and each ends this client's transfer
            error = str(failure) or type(failure).__name__
        else:
            return Sent(progress.position - body.start, None)
        return Sent(progress.position - body.start, error)

    @contextlib.asynccontextmanager
    async def _channel(self, transport: asyncio.Transport, tls: SSL.Connection | None) -> AsyncIterator[Channel]:
        """Take the client's socket (and TLS) for the time of one body."""
        if transport.is_closing():
            raise _closed()
        # Our own descriptor of the same socket: the transport may close its own at any time, and the loop allows no
        # second watcher on it.
        socket_fd = os.dup(transport.get_extra_info("socket").fileno())
        transport.pause_reading()
        try:
            while transport.get_write_buffer_size() > 0:
                await self._writable(socket_fd)
                await asyncio.sleep(0)
            yield PlainChannel(socket_fd) if tls is None else TlsChannel(socket_fd, tls)
        finally:
            transport.resume_reading()
            os.close(socket_fd)

    async def _send(self, body: FileBody, channel: Channel, progress: "_Progress") -> None:
        loop = asyncio.get_running_loop()
        while progress.position < body.end or channel.has_unsent:
            end = progress.position if channel.has_unsent else await _released(body, progress.position)
            pushed = await loop.run_in_executor(self._threads, channel.push, body.fd, progress.position, end)
            progress.position = pushed.position
            if pushed.blocked:
                await self._writable(channel.socket_fd)

    async def _writable(self, socket_fd: int) -> None:
        """Wait until the socket takes bytes again, or raise `ClientStalledError`."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(socket_fd, ready.set)
        try:
            async with asyncio.timeout(self.stall_limit_s):
                await ready.wait()
        except TimeoutError:
            raise ClientStalledError(f"the client took no byte for {self.stall_limit_s:g} s") from None
        finally:
            loop.remove_writer(socket_fd)


@dataclass(slots=True)
class _Progress:
    """How far a body has come; still known when sending it fails."""

    position: int


def _closed() -> ConnectionResetError:
    return ConnectionResetError("connection closed before the body was sent")


async def _released(body: FileBody, position: int) -> int:
    """Return up to which offset the body may be sent now; wait if that is not beyond `position`."""
    if body.released is None:
        return body.end
    return min(body.end, await body.released(position))


def _client_writer(client: connection.Client) -> asyncio.StreamWriter:
    """Return the stream that mitmproxy writes to this client with; ConnectionResetError when the client has gone."""
    proxyserver = ctx.master.addons.get("proxyserver")
    handler = proxyserver.connections.get(client.id)
    connection_io = None if handler is None else handler.transports.get(client)
    if connection_io is None or connection_io.writer is None or connection_io.writer.is_closing():
        raise _closed()
    writer: asyncio.StreamWriter = connection_io.writer
    return writer
