"""What is written to the bucket while nobody waits for it: one errand for each name at a time, and a bounded number."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from regproxy.shared.bucket import ConditionFailed
from regproxy.shared.link import BucketDown
from regproxy.store.errors import StoreError

_logger = logging.getLogger(__name__)

MOST = 2_000
_AT_ONCE = 4


class Errands:
    """Runs them. What the bucket does not take now is dropped: it is learnt again, or noted (`shared.notes`).

    For the event loop.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], Awaitable[None]]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def pending(self) -> int:
        """How many wait or run."""
        return len(self._waiting) + len(self._running)

    def add(self, name: str, errand: Callable[[], Awaitable[None]]) -> None:
        """Run an errand soon; one of the same name that has not begun gives way to it."""
        if name not in self._waiting and len(self._waiting) >= MOST:
            return
        self._waiting[name] = errand
        self._start()

    async def idle(self) -> None:
        """Wait until there is nothing to do."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    def cancel(self) -> None:
        """Give all of it up."""
        self._waiting.clear()
        for task in self._running.values():
            task.cancel()

    def _start(self) -> None:
        ready = (name for name in self._waiting if name not in self._running)
        for name in list(ready)[: _AT_ONCE - len(self._running)]:
            task = asyncio.get_running_loop().create_task(_run(name, self._waiting.pop(name)))
            self._running[name] = task
            task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, _: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        self._start()


async def _run(name: str, errand: Callable[[], Awaitable[None]]) -> None:
    try:
        await errand()
    except (BucketDown, ConditionFailed):
        _logger.debug("%s was not written to the shared store", name)
    except StoreError as error:
        _logger.warning("%s was not written to the shared store: %s", name, error)
