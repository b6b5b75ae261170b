"""The last requests of all workers. Each remembers its own; the desk asks for those of the others.

Among several workers a request's number is the moment of its end, in microseconds of the machine's monotonic clock,
which is one for all processes. So "what came after" is the same for all, and nothing is passed over: who answers says
until when it has told all.
"""

import json
import time
from dataclasses import asdict
from typing import Any

from regproxy.stack.desk import Desk
from regproxy.stack.recent_requests import Recent, RecentRequests

_TOPIC = "requests"
_LOOK_AGAIN_S = 0.25
_MOST_TEXT = 2000
_MOST_TOLD_CHARACTERS = 300_000


class RequestsOfAll:
    """What `RecentRequests` is for one process."""

    def __init__(self, recent: RecentRequests, desk: Desk) -> None:
        self._own, self._desk = recent, desk
        desk.on_question(_TOPIC, self._answer)

    @property
    def newest(self) -> int:
        """The number of the last request."""
        return self._own.newest

    async def find(self, request_id: str) -> Recent | None:
        """Return the request with this id, if some worker remembers it."""
        found = self._own.find(request_id)
        if found is not None:
            return found
        return next(iter(_heard(await self._desk.others(_TOPIC, {"find": request_id}))), None)

    async def about(self, registry: str, name: str, reference: str, most: int) -> list[Recent]:
        """Return the last requests for content; newest first; an empty text matches all."""
        own = self._own.about(registry, name, reference, most)
        others = _heard(await self._desk.others(_TOPIC, {"about": [registry, name, reference], "most": most}))
        return sorted([*own, *others], key=lambda each: each.number, reverse=True)[:most] if others else own

    async def last(self, most: int) -> list[Recent]:
        """Return the last requests, oldest first."""
        until = self.newest
        found = await self.about("", "", "", most)
        return [each for each in reversed(found) if each.number <= until]

    async def after(self, number: int, wait_s: float, most: int) -> list[Recent]:
        """Return what came after a number, oldest first; waits for the first of them, so long at most."""
        deadline_s = time.monotonic() + wait_s
        while True:
            found = await self._between(number, most)
            left_s = deadline_s - time.monotonic()
            if found or left_s <= 0:
                return found
            await self._own.next_one(left_s if self._desk.is_alone else min(left_s, _LOOK_AGAIN_S))

    async def _between(self, after: int, most: int) -> list[Recent]:
        until = self._own.newest
        asked = {"after": after, "until": until, "most": most}
        told = await self._desk.others(_TOPIC, asked)
        until = min([until, *(each["until"] for each in told)])
        found = [each for each in [*self._own.after(after, most), *_heard(told)] if each.number <= until]
        return sorted(found, key=lambda each: each.number)[:most]

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        match asked:
            case {"find": request_id}:
                found = self._own.find(request_id)
                return None if found is None else _told([found], 0)
            case {"about": [registry, name, reference], "most": most}:
                return _told(self._own.about(registry, name, reference, most), 0)
            case {"after": after, "until": until, "most": most}:
                return _told([each for each in self._own.after(after, most) if each.number <= until], until, most)
            case _:
                return None


def _told(requests: list[Recent], until: int, most: int | None = None) -> dict[str, Any]:
    """Return them as JSON has it; when they are too many, the first of them, and until when that is all."""
    told: list[dict[str, Any]] = []
    characters = 0
    for request in requests:
        fields = {
            name: value[:_MOST_TEXT] if isinstance(value, str) else value for name, value in asdict(request).items()
        }
        characters += len(json.dumps(fields))
        if characters > _MOST_TOLD_CHARACTERS:
            return {"requests": told, "until": told[-1]["number"]}
        told.append(fields)
    return {"requests": told, "until": told[-1]["number"] if most is not None and len(told) == most else until}


def _heard(answers: list[Any]) -> list[Recent]:
    return [Recent(**fields) for answer in answers for fields in answer["requests"]]
