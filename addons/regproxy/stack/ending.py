"""How this proxy ends: what `engine.drain` needs to know of it, and what clients are told meanwhile."""

from collections.abc import Iterable

from mitmproxy import ctx, http
from mitmproxy.proxy.server import ConnectionHandler

from regproxy.engine.drain import Drain
from regproxy.engine.registry_mode import FrontDoor
from regproxy.engine.time_limits import HandledConnection
from regproxy.stack.core import Core


class LastAnswers:
    """Tells clients to go elsewhere with their next request."""

    name = "registry-last-answers"

    def __init__(self, core: Core) -> None:
        self._core = core

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """End the connection with this answer (RFC 9112 section 9.6)."""
        if self._core.is_ending and flow.response is not None:
            flow.response.headers["connection"] = "close"


def make_drain(core: Core, front_door: FrontDoor, *, one_of_several: bool) -> Drain:
    """Return the end of a process that serves."""

    def errands() -> int:
        to_write = 0 if core.shared is None else core.shared.due
        return to_write + core.store.followed_elsewhere()

    return Drain(
        core.settings.drain_timeout_s,
        close_port=_close_port,
        connections=lambda: [*front_door.open, *map(HandledConnection, connection_handlers())],
        errands=errands,
        shutdown=ctx.master.shutdown,
        one_of_several=one_of_several,
    )


def connection_handlers() -> Iterable[ConnectionHandler]:
    """Return mitmproxy's handlers of clients' connections."""
    handlers: Iterable[ConnectionHandler] = ctx.master.addons.get("proxyserver").connections.values()
    return handlers


async def _close_port() -> None:
    ctx.options.update(server=False)
    await ctx.master.addons.get("proxyserver").setup_servers()
