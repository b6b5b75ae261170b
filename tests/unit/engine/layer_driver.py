"""Runs a mitmproxy layer without I/O: events go in, a test answers the hooks, and commands are recorded."""

from collections import deque
from collections.abc import Callable

from mitmproxy import connection, options
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import modes

type OnHook = Callable[[commands.StartHook], None]


def new_context(opts: options.Options) -> context.Context:
    """Return the context of a client that has just connected."""
    client = connection.Client(
        peername=("192.0.2.7", 4711), sockname=("192.0.2.1", 3128), timestamp_start=1.0, state=ConnectionState.OPEN
    )
    made = context.Context(client, opts)
    modes.HttpProxy(made)  # takes its place in `layers`, where the TLS layer looks at the one before it
    return made


class LayerDriver:
    """One layer and what it has asked for so far."""

    def __init__(self, top: layer.Layer, on_hook: OnHook, failures: dict[object, str] | None = None) -> None:
        self.layer = top
        self.client = top.context.client
        self.on_hook = on_hook
        self.failures = failures or {}
        """Server address -> why it cannot be connected to."""
        self.holding = False
        """True: hooks stay unanswered until `release`."""
        self.commands: list[commands.Command] = []
        self._replies: deque[events.Event] = deque()
        self.feed(events.Start())

    def feed(self, event: events.Event) -> None:
        """Give the layer an event, and the replies to what it asks for."""
        self._take(event)
        while self._replies and not self.holding:
            self._take(self._replies.popleft())

    def receive(self, received: bytes) -> None:
        """Let the client send bytes."""
        self.feed(events.DataReceived(self.client, received))

    def release(self) -> None:
        """Answer the hooks that were held."""
        self.holding = False
        while self._replies:
            self._take(self._replies.popleft())

    @property
    def sent(self) -> bytes:
        """All bytes for the client."""
        return self.sent_to(self.client)

    def sent_to(self, peer: connection.Connection) -> bytes:
        """All bytes for one end."""
        return b"".join(
            command.data
            for command in self.commands
            if isinstance(command, commands.SendData) and command.connection is peer
        )

    @property
    def closed(self) -> bool:
        """Whether the client's connection is to be closed."""
        return any(
            isinstance(command, commands.CloseConnection) and command.connection is self.client
            for command in self.commands
        )

    def hooks(self) -> list[str]:
        """Names of the hooks so far."""
        return [command.name for command in self.commands if isinstance(command, commands.StartHook)]

    def opened(self) -> list[object]:
        """Addresses of the connections asked for."""
        return [command.connection.address for command in self.commands if isinstance(command, commands.OpenConnection)]

    def _take(self, event: events.Event) -> None:
        for command in self.layer.handle_event(event):
            self.commands.append(command)
            match command:
                case commands.StartHook():
                    self.on_hook(command)
                    if command.blocking:
                        self._replies.append(events.HookCompleted(command, None))
                case commands.OpenConnection():
                    failure = self.failures.get(command.connection.address)
                    if failure is None:
                        command.connection.state = ConnectionState.OPEN
                        command.connection.timestamp_start = 2.0
                    self._replies.append(events.OpenConnectionCompleted(command, failure))
                case _:
                    pass
