"""What is written to the bucket while nobody waits for it: one errand for each name at a time, and a bounded number."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

from regproxy.shared.bucket import ConditionFailed
from regproxy.shared.link import BucketDown
from regproxy.store.errors import StoreError

_logger = logging.getLogger(__name__)

MOST = 2_000
TRIES = 2
"""One finds out that the bucket fails, one comes after it. A failure stops all work with the bucket for a while."""

_AT_ONCE = 4
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class _Errand:
    do: Callable[[], Awaitable[None]]
    tries: int = TRIES


class Errands:
    """Runs them while the bucket answers; what it does not take now waits until it does, or the process ends.

    What must outlive the process is noted beside it (`shared.notes`). For the event loop.
    """

    def __init__(self, is_up: Callable[[], bool]) -> None:
        self._is_up = is_up
        self._waiting: dict[str, _Errand] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._once: set[str] = set()
        """What runs, and is not to be tried again."""

    @property
    def pending(self) -> int:
        """How many wait or run."""
        return len(self._waiting) + len(self._running)

    def add(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        """Run an errand soon; one of the same name that has not begun gives way to it."""
        if name not in self._waiting and len(self._waiting) >= MOST:
            return
        self._waiting[name] = _Errand(do)
        self._start()

    def drop(self, prefix: str) -> None:
        """Begin no errand, nor try one again, whose name begins so."""
        for name in [name for name in self._waiting if name.startswith(prefix)]:
            del self._waiting[name]
        self._once |= {name for name in self._running if name.startswith(prefix)}

    async def run(self) -> None:
        """Go on with what waits as soon as the bucket answers again, until cancelled."""
        while True:
            self._start()
            await asyncio.sleep(_LOOK_S)

    async def idle(self) -> None:
        """Wait until there is nothing to do, or the bucket takes nothing."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    def cancel(self) -> None:
        """Give all of it up."""
        self._waiting.clear()
        for task in self._running.values():
            task.cancel()

    def _start(self) -> None:
        if not self._is_up():
            return
        ready = (name for name in self._waiting if name not in self._running)
        for name in list(islice(ready, _AT_ONCE - len(self._running))):
            task = asyncio.get_running_loop().create_task(self._run(name, self._waiting.pop(name)))
            self._running[name] = task
            task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, _: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        self._once.discard(name)
        self._start()

    async def _run(self, name: str, errand: _Errand) -> None:
        try:
            await errand.do()
        except BucketDown:
            _logger.debug("%s was not written to the shared store, %d tries are left", name, errand.tries - 1)
            if errand.tries > 1 and name not in self._once:
                self._waiting.setdefault(name, _Errand(errand.do, errand.tries - 1))
        except ConditionFailed:
            _logger.debug("%s was not written to the shared store: somebody was quicker", name)
        except StoreError as error:
            _logger.warning("%s was not written to the shared store: %s", name, error)
