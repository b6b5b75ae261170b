"""What the bucket has answered a moment ago, and what it is asked just now: once for all who want to know it."""

import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from regproxy.origin.single_flight import SingleFlight

ASKED_S = 3.0
"""How long an answer of the bucket stands: one pull asks for the same a dozen times."""

_MOST = 20_000


class Lately[Key: Hashable, Answer]:
    """Questions and their answers. For the event loop."""

    def __init__(self) -> None:
        self._answered: OrderedDict[Key, tuple[float, Answer]] = OrderedDict()
        self._running: SingleFlight[Key, Answer] = SingleFlight()

    async def ask(self, key: Key, question: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Return the answer of a moment ago, or wait for one. Raises what the question does.

        What has failed is asked again by the next.
        """
        answered = self._answered.get(key)
        if answered is not None and time.monotonic() - answered[0] < ASKED_S:
            return answered[1]
        return await self._running.run(key, lambda: self._ask(key, question))

    async def _ask(self, key: Key, question: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        answer = await question()
        self._answered[key] = time.monotonic(), answer
        self._answered.move_to_end(key)
        if len(self._answered) > _MOST:
            self._answered.popitem(last=False)
        return answer
