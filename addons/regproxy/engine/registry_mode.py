"""mitmproxy's explicit proxy, with connections that begin as `WarmConnection`s.

A proxy mode of our own is the narrowest place for it: mitmproxy finds modes and their servers by subclass, and a
server decides how its connections begin. `mode=regular`, as in mitmweb, goes without.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Literal

from mitmproxy import ctx
from mitmproxy.net.free_port import get_free_port
from mitmproxy.proxy import context, layer, mode_specs
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.mode_servers import AsyncioServerInstance, ProxyConnectionHandler
from OpenSSL import SSL

from regproxy.engine.connect_layer import established_layer, plain_layer
from regproxy.engine.connection_count import ConnectionCount, ConnectionLimits
from regproxy.engine.warm_connection import HandedOver, Reception, WarmConnection

MODE = "registry"
"""The value of mitmproxy's `mode` option."""

ACCEPTED_AT_ONCE = 1
"""Of several workers the one that is free takes the next connection; with 4, one of four often took all of eight."""

BACKLOG = 1024
"""Connections that wait to be accepted (the kernel's bound is 4,096): a cluster's nodes may come in the same second."""


class RegistryMode(mode_specs.ProxyMode):
    """`mode=registry`."""

    @property
    def description(self) -> str:
        """The name in log lines."""
        return "Registry proxy"

    @property
    def transport_protocol(self) -> Literal["tcp"]:
        """TCP."""
        return "tcp"

    def __post_init__(self) -> None:
        if self.data:
            raise ValueError(f"{self.full_spec!r}: the mode {MODE!r} has no parameter")


class _SharedSocket(socket.socket):
    """A port of several workers. asyncio lets as many connections wait as it takes in a row."""

    def listen(self, backlog: int = 0, /) -> None:
        """Let as many wait as for one process, at every moment: a worker may be ended in any."""
        del backlog
        super().listen(BACKLOG)


class FrontDoor:
    """The addon that says what connections begin with; `startup` sets it before the port opens."""

    name = "registry-front-door"

    reception: Reception | None = None
    count = ConnectionCount(ConnectionLimits(0, 0))
    listening: tuple[socket.socket, ...] = ()
    """Sockets that a supervisor has bound; without them the port is opened here."""

    def __init__(self) -> None:
        self.open: set[CountedConnection] = set()
        """The connections that were not handed over."""


class CountedConnection(WarmConnection):
    """A connection that may be one too many. Once handed over, it is the handler's end that counts."""

    def __init__(
        self, door: FrontDoor, reception: Reception, hand_over: Callable[[asyncio.Transport, HandedOver], None]
    ) -> None:
        super().__init__(reception, hand_over)
        self._count, self._open = door.count, door.open
        self._is_counted = False

    @property
    def quiet(self) -> Hashable | None:
        """What stays the same while the client asks for nothing; None while something is on its way to it."""
        is_sending = self._sending is not None and not self._sending.done()
        if is_sending or self._writing_paused or self._transport.is_closing():
            return None
        return self._receive, self._deadline_s, len(self._early)

    def end(self) -> None:
        """Close a quiet connection."""
        self._close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse."""
        super().connection_made(transport)
        self._open.add(self)
        refused = self._count.begin(self._client_ip)
        self._is_counted = refused is None
        if refused is not None:
            self._transport.write(refused)
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._open.discard(self)
        if self._is_counted:
            self._count.end(self._client_ip)

    def _hand_over(self, authority: tuple[str, int] | None, tls: SSL.Connection | None = None) -> None:
        self._open.discard(self)
        super()._hand_over(authority, tls)


class RegistryInstance(AsyncioServerInstance[RegistryMode]):
    """The server of `RegistryMode`."""

    def make_top_layer(self, layer_context: context.Context) -> layer.Layer:
        """Return the first layer of a connection that was handed over before its CONNECT."""
        return modes.HttpProxy(layer_context)

    async def listen(self, host: str, port: int) -> list[asyncio.Server]:  # type: ignore[override]
        """Open the port; 0 takes a free one, the same for IPv4 and IPv6."""
        begin, loop = self._begin, asyncio.get_running_loop()
        shared = self._front_door.listening
        if not shared:
            return [await loop.create_server(begin, host, port or get_free_port(), backlog=BACKLOG)]
        ours = [_SharedSocket(fileno=os.dup(each.fileno())) for each in shared]
        return [await loop.create_server(begin, sock=each, backlog=ACCEPTED_AT_ONCE) for each in ours]

    async def _stop(self) -> None:
        """Close the port; who got through to it until now is taken in, for the kernel would cut them."""
        loop = asyncio.get_running_loop()
        servers = [server for server in self._servers if isinstance(server, asyncio.Server)]
        ports = [port for server in servers for port in server.sockets]
        for port in ports:
            loop.remove_reader(port.fileno())
        await asyncio.sleep(0)  # what asyncio has accepted is lost with its server unless it is attached to that by now
        for port in ports:
            with suppress(OSError), socket.socket(fileno=os.dup(port.fileno())) as same:
                while True:
                    accepted, _ = same.accept()
                    await loop.connect_accepted_socket(self._begin, accepted)
        for each in self._front_door.listening:
            each.close()
        await super()._stop()

    def _begin(self) -> CountedConnection:
        return CountedConnection(self._front_door, self._reception, self.hand_over)

    def _layer(self, layer_context: context.Context, handed_over: HandedOver) -> layer.Layer:
        """Return the layer that goes on: with the CONNECT, behind it, or behind the TLS handshake."""
        top = self.make_top_layer(layer_context)
        if handed_over.authority is None:
            return top
        if handed_over.tls is None:
            return plain_layer(layer_context, *handed_over.authority)
        return established_layer(
            layer_context, handed_over.authority, handed_over.tls, handed_over.early, self._reception.warm
        )

    @property
    def _front_door(self) -> FrontDoor:
        front_door: FrontDoor = ctx.master.addons.get(FrontDoor.name)
        return front_door

    @property
    def _reception(self) -> Reception:
        reception = self._front_door.reception
        assert reception is not None
        return reception

    def hand_over(self, transport: asyncio.Transport, handed_over: HandedOver) -> None:
        """Let mitmproxy go on with a connection."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        if handed_over.tls is None:
            reader.feed_data(handed_over.early)  # before anything that comes now
        protocol = asyncio.StreamReaderProtocol(reader, partial(self._go_on, handed_over), loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    async def _go_on(self, handed_over: HandedOver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what mitmproxy's `handle_stream` does, from where the connection stands."""
        peername = writer.get_extra_info("peername")
        try:
            handler = ProxyConnectionHandler(ctx.master, reader, writer, ctx.options, self.mode)
            handler.layer = self._layer(handler.layer.context, handed_over)
            with self.manager.register_connection(handler.client.id, handler):
                await handler.handle_client()
        finally:
            self._front_door.count.end(peername[0] if peername else "")
