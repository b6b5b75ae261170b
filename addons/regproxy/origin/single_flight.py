"""One question to the upstream for everyone who asks it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any


class SingleFlight[Key: Hashable, Result]:
    """Runs one call per key; who asks while it runs gets its result, or its exception.

    The call does not belong to whoever started it: a client that leaves does not take the others' answer with it.
    """

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[Result]] = {}

    async def run(self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return what the running call for `key` gives, starting it if there is none."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(call())
            if not task.done():  # an eager task may have ended already
                self._running[key] = task
                task.add_done_callback(lambda ended: self._forget(key, ended))
        return await asyncio.shield(task)

    def _forget(self, key: Key, ended: asyncio.Task[Result]) -> None:
        del self._running[key]
        if not ended.cancelled():
            ended.exception()  # seen, even if everyone who asked has left: asyncio would complain
