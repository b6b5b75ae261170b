"""What the bucket has answered a moment ago, and what it is asked just now: once for all who want to know it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from functools import partial

ASKED_S = 3.0
"""How long an answer of the bucket stands: one pull asks for the same a dozen times."""

_MOST = 20_000


class Lately[Key: Hashable, Answer]:
    """Questions and their answers. For the event loop."""

    def __init__(self) -> None:
        self._answered: OrderedDict[Key, tuple[float, Answer]] = OrderedDict()
        self._running: dict[Key, asyncio.Task[Answer]] = {}

    async def ask(self, key: Key, question: Callable[[], Coroutine[None, None, Answer]]) -> Answer:
        """Return the answer of a moment ago, or wait for one. Raises what the question does.

        It goes on when a client gives up; what has failed is asked again by the next.
        """
        answered = self._answered.get(key)
        if answered is not None and time.monotonic() - answered[0] < ASKED_S:
            return answered[1]
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.get_running_loop().create_task(question())
            running.add_done_callback(partial(self._ended, key))
        return await asyncio.shield(running)

    def _ended(self, key: Key, task: asyncio.Task[Answer]) -> None:
        del self._running[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._answered[key] = time.monotonic(), task.result()
        self._answered.move_to_end(key)
        if len(self._answered) > _MOST:
            self._answered.popitem(last=False)
