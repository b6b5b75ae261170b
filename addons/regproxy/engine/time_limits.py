"""How long a connection may stay in one state: slow heads, stalled uploads, silent upstreams, idle tunnels.

mitmproxy has one limit for everything, an inactivity watchdog that also ends requests whose upstream takes its time.
Here one task looks at every connection every few seconds, and ends what has not changed its state for too long. The
requests themselves do nothing for it: no timer is set, no time is taken. A limit is met at the next look after it.

While a hook runs (a download that feeds this client, a body on its way, a question to a registry) the proxy itself is
at work, with limits of its own, and the connection is left alone.
"""

import asyncio
import enum
import logging
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields

from mitmproxy import connection
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers import TCPLayer, modes
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.server import ConnectionHandler, ConnectionIO
from mitmproxy.proxy.tunnel import TunnelState

from regproxy.engine.client_tls import InterceptedTlsLayer
from regproxy.engine.connect_layer import ConnectLayer
from regproxy.engine.http_layer import RegistryHttpLayer

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 5.0
SHORTEST_PAUSE_S = 0.05
"""Between two looks: a quarter of the shortest limit, within these bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Seconds; 0 is no limit, but ends an idle connection at once for `keepalive_s`."""

    client_header_s: float
    """For a head to arrive: of a CONNECT, a TLS handshake, a request."""
    client_body_s: float
    """Between two reads of a request's body."""
    keepalive_s: float
    """For a connection without a request."""
    send_s: float
    """Between two writes to a client."""
    upstream_connect_s: float
    upstream_send_s: float
    """Between two writes to an upstream."""
    upstream_read_s: float
    """Between two reads from an upstream."""
    upstream_commit_s: float
    """For the answer to a write: a registry may take minutes to put a large upload in its place."""
    tunnel_connect_s: float
    tunnel_silence_s: float

    @property
    def pause_s(self) -> float:
        """How long to wait between two looks."""
        shortest = min((value for each in fields(self) if (value := getattr(self, each.name)) > 0), default=0.0)
        return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, shortest / 4))


class Phase(enum.Enum):
    """What a connection is waiting for; the value is the limit's field."""

    HEAD = "client_header_s"
    IDLE = "keepalive_s"
    BODY = "client_body_s"
    SEND = "send_s"
    UPSTREAM_CONNECT = "upstream_connect_s"
    UPSTREAM_SEND = "upstream_send_s"
    UPSTREAM_READ = "upstream_read_s"
    UPSTREAM_COMMIT = "upstream_commit_s"
    TUNNEL_CONNECT = "tunnel_connect_s"
    TUNNEL = "tunnel_silence_s"


_UPSTREAM_PHASES = frozenset({Phase.UPSTREAM_CONNECT, Phase.UPSTREAM_SEND, Phase.UPSTREAM_READ, Phase.TUNNEL_CONNECT})


@dataclass(frozen=True, slots=True)
class State:
    """A phase, and what changes in it when there is progress."""

    phase: Phase
    progress: tuple[object, ...]


@dataclass(slots=True)
class _Seen:
    state: State
    since_s: float
    ended: bool = False


class TimeLimitWatch:
    """Looks at the connections and ends those that are over a limit."""

    def __init__(self, limits: TimeLimits, connections: Callable[[], Iterable[ConnectionHandler]]) -> None:
        self._limits = limits
        self._connections = connections
        self._seen: dict[str, _Seen] = {}

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.pause_s)
            self.look(loop.time())

    def look(self, now_s: float) -> None:
        """Compare every connection with what was seen of it before."""
        seen: dict[str, _Seen] = {}
        for handler in list(self._connections()):
            state = observe(handler)
            if state is None:
                continue
            earlier = self._seen.get(handler.client.id)
            if earlier is None or earlier.state != state:
                earlier = _Seen(state, now_s)
            elif not earlier.ended and self._is_over(state.phase, now_s - earlier.since_s):
                earlier.ended = True
                self._end(handler, state.phase)
            seen[handler.client.id] = earlier
        self._seen = seen

    def _is_over(self, phase: Phase, waited_s: float) -> bool:
        limit_s: float = getattr(self._limits, phase.value)
        return waited_s >= limit_s and (limit_s > 0 or phase is Phase.IDLE)

    def _end(self, handler: ConnectionHandler, phase: Phase) -> None:
        """End the upstream's side if that is what is waited for, so that the client is told; else the client's."""
        logger.debug("connection of %s ended: over the limit %s", handler.client.peername, phase.value)
        reason = f"no progress for {getattr(self._limits, phase.value):g} s"
        if phase in _UPSTREAM_PHASES:
            _cancel([io for peer, io in handler.transports.items() if peer is not handler.client], reason)
        else:
            end_client(handler, reason)


@dataclass(frozen=True, slots=True)
class HandledConnection:
    """A connection of mitmproxy's, when the process is about to end (`engine.drain`)."""

    handler: ConnectionHandler

    @property
    def quiet(self) -> Hashable | None:
        """What stays the same while it waits for a request; None while it is at work."""
        state = observe(self.handler)
        return state if state is not None and state.phase in (Phase.IDLE, Phase.HEAD) else None

    def end(self) -> None:
        """Close it."""
        end_client(self.handler, "the proxy ends")


def end_client(handler: ConnectionHandler, reason: str) -> None:
    """Close the client's side, and all with it."""
    _cancel([io for peer, io in handler.transports.items() if peer is handler.client], reason)


def _cancel(ended: Iterable[ConnectionIO], reason: str) -> None:
    for io in ended:
        if io.handler is not None:
            io.handler.cancel(reason)


def observe(handler: ConnectionHandler) -> State | None:  # noqa: PLR0911 - one for each state
    """Return what a connection is waiting for; None while the proxy works for it."""
    if handler.timeout_watchdog.blocker:
        return None
    client = handler.client
    servers = {peer: io for peer, io in handler.transports.items() if peer is not client}
    layers = handler.layer.context.layers
    match layers[-1] if layers else None:
        case RegistryHttpLayer() if any(map(_is_in_handshake, layers)):
            return State(Phase.HEAD, ("TLS",))
        case RegistryHttpLayer() as http_layer:
            return _observe_http(handler, http_layer, servers)
        case TCPLayer():
            return State(Phase.TUNNEL, _activity(handler))
        case ConnectLayer() if servers:
            return State(Phase.TUNNEL_CONNECT, tuple(peer.id for peer in servers))
        case ConnectLayer() | modes.HttpProxy() | None:
            return State(Phase.HEAD, ("CONNECT",))
        case _:
            return State(Phase.IDLE, _activity(handler))


def _is_in_handshake(each: layer.Layer) -> bool:
    return isinstance(each, InterceptedTlsLayer) and each.tunnel_state is not TunnelState.OPEN


def _observe_http(  # noqa: PLR0911 - one for each state
    handler: ConnectionHandler, http_layer: RegistryHttpLayer, servers: dict[connection.Connection, ConnectionIO]
) -> State:
    client = handler.client
    server = http_layer.connections.get(client)
    if not isinstance(server, Http1Server) or server.state == server.done:
        return State(Phase.IDLE, _activity(handler))
    unsent_bytes = _unsent_bytes(handler.transports.get(client))
    if server.state == server.read_headers:
        if unsent_bytes:
            return State(Phase.SEND, (server.stream_id, unsent_bytes))
        is_head = server.stream_id == 1 or len(server.buf) > 0
        return State(Phase.HEAD if is_head else Phase.IDLE, (server.stream_id,))
    activity = _activity(handler)
    connecting = tuple(peer.id for peer, io in servers.items() if io.reader is None)
    if connecting:
        return State(Phase.UPSTREAM_CONNECT, connecting)
    if any(_unsent_bytes(io) for io in servers.values()):
        return State(Phase.UPSTREAM_SEND, activity)
    if server.state == server.read_body:
        return State(Phase.BODY, activity)
    if unsent_bytes:
        return State(Phase.SEND, activity)
    is_write = server.request is not None and server.request.method not in ("GET", "HEAD") and server.response is None
    return State(Phase.UPSTREAM_COMMIT if is_write else Phase.UPSTREAM_READ, activity)


def _activity(handler: ConnectionHandler) -> tuple[object, ...]:
    """Return what changes when bytes are read from anybody, or leave for anybody."""
    unsent = (_unsent_bytes(io) for io in handler.transports.values())
    return (handler.timeout_watchdog.last_activity, *unsent)


def _unsent_bytes(io: ConnectionIO | None) -> int:
    writer = None if io is None else io.writer
    if not isinstance(writer, asyncio.StreamWriter):
        return 0
    return writer.transport.get_write_buffer_size()
