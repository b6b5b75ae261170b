"""What workers count, told to one another: so each has the sums of all, and the one with the desk can answer for all.

Told is what has grown since the last time, every second if there is something, and before an answer to operators. What
was told stays when its worker dies. Nothing is added on the way of a request: it is compared with what was told.
"""

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from regproxy.engine.crew import Crew
from regproxy.policy.day_counts import DayCounts, History
from regproxy.stack.core import Core
from regproxy.stack.desk import DESK, TELL
from regproxy.stack.recent_requests import RecentRequests
from regproxy.stack.statistics import Statistics, Trouble

INTERVAL_S = 1.0
_MOST_TROUBLES = 50
_COUNTS = tuple(each.name for each in fields(DayCounts))

type _Key = tuple[str | int, ...]


class Tallies:
    """This worker's, and what it hears. For the event loop."""

    def __init__(self, core: Core, statistics: Statistics, recent: RecentRequests) -> None:
        self._core, self._statistics, self._recent = core, statistics, recent
        self._crew: Crew | None = None
        self._told: Counter[_Key] = Counter()
        self._troubles: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._knows_all = True
        self._tells = False

    def share(self, crew: Crew) -> None:
        """Begin to tell and to hear."""
        self._crew = crew
        self._knows_all = crew.place.is_first
        self._recent.is_one_of_many = True
        self._statistics.on_trouble = self._note_trouble
        crew.on_fact("tallies", self._hear)
        self._core.desk.on_question(TELL, self._tell_now)
        crew.on_question("all tallies", self._all)

    async def run(self) -> None:
        """Learn what was counted before this worker was started, then tell what it counts; with others only."""
        crew = self._crew
        if crew is None:
            return
        if not self._knows_all:
            for told in await crew.ask("all tallies", holder=DESK):
                self._hear_all(told)
        self._knows_all = self._tells = True
        self._told.update(self._days())  # they come from the file, or from the desk
        while True:
            self.tell()
            await asyncio.sleep(INTERVAL_S)

    def tell(self) -> None:
        """Tell what has grown."""
        if self._crew is None or not self._tells:
            return
        self._statistics.look()
        grown, troubles = self._grown(), [*self._troubles.values()]
        self._troubles.clear()
        if grown or troubles:
            self._crew.tell(
                "tallies", "", {"grown": [[*key, count] for key, count in grown.items()], "troubles": troubles}
            )

    async def _tell_now(self, _: object) -> bool:
        self.tell()
        return True

    def _grown(self) -> dict[_Key, int]:
        now = dict(self._counted())
        grown = {key: count - self._told[key] for key, count in now.items() if count > self._told[key]}
        # What is less than before was begun anew, or forgotten.
        grown |= {key: count for key, count in now.items() if 0 < count < self._told[key]}
        self._told = Counter(now)
        return grown

    def _counted(self) -> Iterator[tuple[_Key, int]]:
        """Yield what this worker has: its own, and of the statistics what others have told, too."""
        number, today = self._statistics.day, self._statistics.today()
        for name in _COUNTS:
            yield ("day", number, name), getattr(today, name)
        for minute in self._statistics.hour()[-2:]:
            yield ("minute", minute.number, "served"), minute.served_bytes
            yield ("minute", minute.number, "fetched"), minute.fetched_bytes
        for registry, name, reads in self._statistics.busiest.all():
            yield ("read", str(registry), name, "requests"), reads.requests
            yield ("read", str(registry), name, "hits"), reads.hits
            yield ("read", str(registry), name, "bytes"), reads.served_bytes
        yield from self._own_sums()

    def _own_sums(self) -> Iterator[tuple[_Key, int]]:
        meter = self._core.upstream.meter
        for status, count in self._recent.by_cache_status.items():
            yield ("status", status), count
        yield ("sent",), self._recent.sent_bytes
        for registry, count in list(meter.received_bytes.items()):
            yield ("received", registry), count
        for key, count in list(meter.failures.items()):
            yield ("failed", *key), count
        for name, count in self._shared_sums().items():
            yield ("shared", name), count

    def _shared_sums(self) -> dict[str, int]:
        shared = self._core.shared
        return {} if shared is None else shared.content.counts.sums()

    # What others tell.

    def _hear(self, _: str, told: Mapping[str, Any]) -> None:
        if not self._knows_all:
            return  # it is in what the desk is about to tell
        self._statistics.look()
        for *key, count in told["grown"]:
            self._add(tuple(key), count)
        for trouble in told["troubles"]:
            self._statistics.hear_trouble(Trouble(**trouble))

    def _add(self, key: _Key, count: int) -> None:
        elsewhere = self._core.elsewhere
        match key:
            case ("day" | "minute" | "read", *_):
                if self._statistics.hear(key, count):
                    self._told[key] += count
            case ("status", str(status)):
                elsewhere.by_cache_status[status] += count
            case ("sent",):
                elsewhere.sent_bytes += count
            case ("received", str(registry)):
                elsewhere.received_bytes[registry] += count
            case ("failed", *names):
                elsewhere.failures[tuple(map(str, names))] += count
            case ("shared", str(name)):
                elsewhere.shared_store[name] += count
            case _:
                pass

    # For a worker that is started later.

    async def _all(self, _: object) -> dict[str, Any]:
        self.tell()
        elsewhere = self._core.elsewhere
        sums: Counter[_Key] = Counter(dict(self._own_sums()))
        sums.update({("status", status): count for status, count in elsewhere.by_cache_status.items()})
        sums["sent",] += elsewhere.sent_bytes
        sums.update({("received", registry): count for registry, count in elsewhere.received_bytes.items()})
        sums.update({("failed", *key): count for key, count in elsewhere.failures.items()})
        sums.update({("shared", name): count for name, count in elsewhere.shared_store.items()})
        counted = {key: count for key, count in self._counted() if key[0] in {"minute", "read"}}
        return {
            "history": self._statistics.history.to_json(),
            "grown": [[*key, count] for key, count in (counted | sums).items()],
            "troubles": [asdict(trouble) for trouble in reversed(self._statistics.troubles())],
        }

    def _hear_all(self, told: Mapping[str, Any]) -> None:
        self._knows_all = True
        self._statistics.go_on_from(History.from_json(told["history"]))
        self._hear("", told)

    def _days(self) -> dict[_Key, int]:
        return {key: count for key, count in self._counted() if key[0] == "day"}

    def _note_trouble(self, trouble: Trouble) -> None:
        """Keep what is to be told of an error; one that comes again is one."""
        key = json.dumps([trouble.registry, trouble.image, trouble.status, trouble.words])
        known = self._troubles.pop(key, None)
        self._troubles[key] = {**asdict(trouble), "count": 1 + (known["count"] if known else 0)}
        if len(self._troubles) > _MOST_TROUBLES:
            self._troubles.popitem(last=False)
