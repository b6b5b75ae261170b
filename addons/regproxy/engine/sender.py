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
from typing import cast

from mitmproxy import connection, ctx

from regproxy.engine.bodies import FileBody
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
        """Send one body. How it ended is written to the transfer; nothing is raised, for that would hang the client."""
        try:
            async with self._channel(transfer) as channel:
                await self._send(transfer, channel)
        except FileShrankError as error:
            transfer.error = str(error)
            logger.error("%s: the client's connection is cut", error)  # noqa: TRY400 - one line, not a traceback
        except ClientStalledError as error:
            transfer.error = str(error)
        except OSError as error:
            transfer.error = f"the client has gone ({error.strerror or error})"
        except Exception as error:  # noqa: BLE001 - an ingest may fail for any reason, and each ends this client's transfer
            transfer.error = str(error) or type(error).__name__

    @contextlib.asynccontextmanager
    async def _channel(self, transfer: Transfer) -> AsyncIterator[Channel]:
        """Take the client's socket (and TLS) from mitmproxy for the time of one body."""
        writer = _client_writer(transfer.client)
        transport = cast(asyncio.Transport, writer.transport)
        # Our own descriptor of the same socket: the transport may close its own at any time, and the loop allows no
        # second watcher on it.
        socket_fd = os.dup(writer.get_extra_info("socket").fileno())
        transport.pause_reading()
        if transfer.tls_layer is not None:
            transfer.tls_layer.lend()
        try:
            while transport.get_write_buffer_size() > 0:
                await self._writable(socket_fd)
                await asyncio.sleep(0)
            if transfer.tls_layer is None:
                yield PlainChannel(socket_fd)
            else:
                yield TlsChannel(socket_fd, transfer.tls_layer.tls)
        finally:
            if transfer.tls_layer is not None:
                transfer.tls_layer.give_back()
            transport.resume_reading()
            os.close(socket_fd)

    async def _send(self, transfer: Transfer, channel: Channel) -> None:
        body = transfer.body
        position = body.start
        loop = asyncio.get_running_loop()
        while position < body.end or channel.has_unsent:
            end = position if channel.has_unsent else await _released(body, position)
            pushed = await loop.run_in_executor(self._threads, channel.push, body.fd, position, end)
            position = pushed.position
            transfer.sent_bytes = position - body.start
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
        raise ConnectionResetError("connection closed before the body was sent")
    writer: asyncio.StreamWriter = connection_io.writer
    return writer
