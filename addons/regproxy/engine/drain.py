"""The end that cuts nobody off: after TERM no new connection is taken, and answers that run have a while to end.

For a process alone and for a worker of several. New connections are refused once the port is closed, so that clients
and load balancers go on to the next replica at once; what the kernel has accepted by then is taken in. A connection
that has nothing to do for a moment is closed. When none is left, or the time is up, the process ends as it always did.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from typing import Protocol

logger = logging.getLogger(__name__)

QUIET_S = 0.5
"""How long a connection may be without a request: one that was opened a moment ago is about to send its first."""

_LOOK_S = 0.05


class Draining(Protocol):
    """A connection."""

    @property
    def quiet(self) -> Hashable | None:
        """What stays the same while nothing is asked of it; None while it is at work."""
        ...

    def end(self) -> None:
        """Close it."""
        ...


class Drain:
    """For the event loop. `connections` names the open ones, `errands` counts what else is worth waiting for."""

    def __init__(  # noqa: PLR0913 - what it ends, and how
        self,
        limit_s: float,
        *,
        close_port: Callable[[], Coroutine[None, None, None]],
        connections: Callable[[], Iterable[Draining]],
        errands: Callable[[], int],
        shutdown: Callable[[], None],
        one_of_several: bool = False,
    ) -> None:
        self._limit_s = limit_s
        self._close_port, self._connections, self._errands = close_port, connections, errands
        self._shutdown = shutdown
        self._one_of_several = one_of_several
        self._running: asyncio.Task[None] | None = None
        self._quiet: dict[Draining, tuple[Hashable, float]] = {}

    @property
    def has_begun(self) -> bool:
        """Whether the process is about to end."""
        return self._running is not None

    def listen(self) -> None:
        """Drain at TERM; INT goes on to end the process at once."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.begin)

    def begin(self) -> None:
        """Begin; asked a second time, end at once.

        But for a worker: a supervisor repeats its TERM for those that are not able to hear it yet, and sends INT to end
        it at once.
        """
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name="drain")
        elif not self._one_of_several:
            self._shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + self._limit_s
        try:
            await self._close_port()
            open_now = len(list(self._connections()))
            if open_now and self._limit_s:
                logger.info("ending: %d connections have %g s", open_now, self._limit_s)
            while (left := self._end_quiet(loop.time())) or self._errands():
                if loop.time() >= limit_s:
                    if left:
                        logger.warning("%d connections were cut: DRAIN_TIMEOUT is %g s", len(left), self._limit_s)
                    return
                await asyncio.sleep(_LOOK_S)
        finally:
            self._shutdown()

    def _end_quiet(self, now_s: float) -> Sequence[Draining]:
        """End what has nothing to do, and return what is still open."""
        left = list(self._connections())
        seen: dict[Draining, tuple[Hashable, float]] = {}
        for each in left:
            state = each.quiet
            if state is None:
                continue
            before, since_s = self._quiet.get(each, (None, now_s))
            seen[each] = state, since_s if before == state else now_s
            if now_s - seen[each][1] >= QUIET_S:
                each.end()
        self._quiet = seen
        return left
