"""Where operators are answered: at one worker, for all of them.

Warmings, uploads, verifications and what is looked after from time to time live in one process. Whichever worker an
operator's request comes to passes it on to the desk, and the desk asks the others for what each of them knows by
itself. When the worker with the desk dies, the one that has waited longest has it: what ran there is over, as after a
restart. A process that works alone is its own desk.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from regproxy.engine.crew import Crew

DESK = "desk"
TELL = "tell"
"""The question to which a worker answers when it has told what it has counted."""

_PATIENCE_S = 10.0
_PAUSE_S = 0.05

type Answerer = Callable[[Any], Awaitable[Any]]


class DeskAwayError(Exception):
    """No worker has the desk: the last one has died, and another one is not ready yet."""


class Desk:
    """This process's side of it."""

    def __init__(self) -> None:
        self._crew: Crew | None = None
        self._is_here = True
        self._came = asyncio.Event()
        self._answerers: dict[str, Answerer] = {}

    @property
    def is_here(self) -> bool:
        """Whether this process answers, and says what is to be said once."""
        return self._is_here

    @property
    def is_alone(self) -> bool:
        """Whether there are no other workers."""
        return self._crew is None

    @property
    def number(self) -> int:
        """Which worker this is, from 1 on."""
        return 1 if self._crew is None else self._crew.place.number

    @property
    def began_s(self) -> float | None:
        """When the first worker was started (monotonic clock); None without others."""
        return None if self._crew is None else self._crew.place.began_s

    async def until_here(self) -> None:
        """Wait until it is."""
        if not self._is_here:
            await self._came.wait()

    def share(self, crew: Crew) -> None:
        """Have one desk with the others; the first worker begins with it."""
        self._crew, self._is_here = crew, crew.place.is_first
        for topic, answerer in self._answerers.items():
            crew.on_question(topic, answerer)

    async def wait_for_it(self) -> None:
        """Have the desk when nobody else has, for good; with others only."""
        if self._crew is None:
            return
        claim = self._crew.claim(DESK)
        while not claim.is_granted:
            await claim.next_word()
        self._is_here = True
        self._came.set()

    def on_question(self, topic: str, answerer: Answerer) -> None:
        """Answer questions of a topic: at the desk, or for it."""
        self._answerers[topic] = answerer
        if self._crew is not None:
            self._crew.on_question(topic, answerer)

    async def ask(self, topic: str, value: object) -> Any:
        """Return the desk's answer, also if it is here. Raises DeskAwayError."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + _PATIENCE_S
        while True:
            if self._is_here or self._crew is None:
                return await self._answerers[topic](value)
            answers = await self._crew.ask(topic, value, holder=DESK)
            if answers:
                return answers[0]
            if loop.time() > give_up_s:
                raise DeskAwayError
            await asyncio.sleep(_PAUSE_S)

    async def have_told(self) -> None:
        """Have all workers tell what they have counted, this one too: an answer that is given outlives it."""
        if self._crew is not None:
            await asyncio.gather(self._answerers[TELL](None), self.others(TELL))

    async def others(self, topic: str, value: object = None) -> list[Any]:
        """Return what the other workers answer; nothing where there are none."""
        return [] if self._crew is None else await self._crew.ask(topic, value)
