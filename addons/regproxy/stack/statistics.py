"""What the dashboard shows of the past: the days, the last hour, the busiest images, the last errors, the quotas.

A request is counted when its line is logged, in a few microseconds and in bounded memory. What the upstream client
counts by itself is taken over when somebody looks, and every second. The days are kept in a file of the cache directory
(`store.day_file`), written every half a minute and at the end: a crash loses no more than that.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from regproxy.oci.endpoint import Blob, Manifest
from regproxy.oci.names import Registry
from regproxy.policy.day_counts import DAY_S, DayCounts, History, day_of
from regproxy.policy.forecast import Left
from regproxy.policy.trouble import in_words, is_trouble
from regproxy.stack.access_log import Entry
from regproxy.stack.busiest import Busiest, Reads
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange
from regproxy.store.day_file import read_history, write_history
from regproxy.store.errors import StoreError

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
WRITE_INTERVAL_S = 30.0

MINUTES = 60
WEEK_DAYS = 7
MOST_ERRORS = 50
MOST_REASON_CHARACTERS = 400
MOST_QUOTAS = 200
QUOTA_SAMPLES = 60
QUOTA_SAMPLE_INTERVAL_S = 30.0
"""Sixty of them are half an hour, of which the forecast is made."""

_HITS = frozenset({CacheStatus.HIT, CacheStatus.REVALIDATED, CacheStatus.STALE})
_MISSES = frozenset({CacheStatus.MISS, CacheStatus.EXPIRED})


@dataclass(slots=True)
class Minute:
    """What went to clients, and what came from registries, within one."""

    number: int
    """Since 1970."""
    served_bytes: int = 0
    fetched_bytes: int = 0


@dataclass(slots=True)
class Trouble:
    """Requests that went wrong in the same way."""

    registry: str
    image: str
    status: int | None
    words: str
    """That name nobody."""
    reason: str
    """The exact one, which may; empty when there is no more to say."""
    at_s: float
    """Unix time of the last one."""
    client_ip: str
    user_agent: str
    """Of the last one."""
    count: int = 1


class Statistics:
    """For the event loop. `clock` is Unix time in seconds."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.time) -> None:
        self._core, self._clock = core, clock
        now_s = clock()
        self.history = History(now_s)
        self.busiest = Busiest()
        self.busiest_since_s = now_s
        self._minutes: deque[Minute] = deque([Minute(int(now_s // 60))], maxlen=MINUTES)
        self._day = day_of(now_s)
        self._today = self.history.day(self._day)
        self._minute_ends_s = 0.0
        self._troubles: OrderedDict[tuple[str, str, int | None, str], Trouble] = OrderedDict()
        self._quotas: OrderedDict[tuple[str, str], deque[Left]] = OrderedDict()
        self._fetched_bytes = 0
        self.on_trouble: Callable[[Trouble], None] = lambda _: None
        """Called with each error that is noted, and its last words."""
        self._writing = threading.Lock()
        self._written = ""
        self._said = ""

    # Counting.

    def count(self, entry: Entry) -> None:
        """Count a request that has been answered; a listener of the access log."""
        exchange = entry.exchange
        if exchange is None:
            return
        self._core.downloads.answered(exchange)
        now_s = self._clock()
        if now_s >= self._minute_ends_s:
            self._turn(now_s)
        reason = entry.error or exchange.error or ""
        if reason or entry.status is None or entry.status >= 400:
            self._note_trouble(entry, exchange, reason, now_s)
        endpoint = exchange.endpoint
        if entry.status in (200, 206) and isinstance(endpoint, Manifest | Blob) and entry.method in ("GET", "HEAD"):
            self._count_read(entry, exchange, endpoint)

    def _count_read(self, entry: Entry, exchange: Exchange, endpoint: Manifest | Blob) -> None:
        today, status, sent_bytes = self._today, exchange.cache_status, entry.sent_bytes
        is_hit = status in _HITS
        if is_hit:
            today.hits += 1
        elif status in _MISSES or entry.method == "GET":
            today.misses += 1
        else:
            return  # a push asks what is there already
        minute = self._minutes[-1]
        today.served_bytes += sent_bytes
        minute.served_bytes += sent_bytes
        if not is_hit and (exchange.trace is None or not exchange.trace.received_bytes):
            # Not fetched by our own client, which counts by itself, but passed through by mitmproxy.
            passed_bytes = int(entry.upstream.bytes or 0)
            today.fetched_bytes += passed_bytes
            minute.fetched_bytes += passed_bytes
        self.busiest.count(exchange.registry, endpoint.name, sent_bytes, hit=is_hit)

    def _note_trouble(self, entry: Entry, exchange: Exchange, reason: str, now_s: float) -> None:
        if not is_trouble(entry.status, reason):
            return
        self._today.errors += 1
        registry, image = str(exchange.registry), _image(exchange)
        words = in_words(entry.status, is_stale=exchange.cache_status is CacheStatus.STALE)
        reason = reason[:MOST_REASON_CHARACTERS]
        trouble = Trouble(registry, image, entry.status, words, reason, now_s, entry.client_ip, entry.user_agent[:200])
        self.on_trouble(trouble)
        self.hear_trouble(trouble)

    def hear_trouble(self, trouble: Trouble) -> None:
        """Add an error to those of its kind; its own day has been counted."""
        key = trouble.registry, trouble.image, trouble.status, trouble.words
        known = self._troubles.pop(key, None)
        self._troubles[key] = replace(trouble, count=trouble.count + (known.count if known is not None else 0))
        if len(self._troubles) > MOST_ERRORS:
            self._troubles.popitem(last=False)

    def hear(self, key: tuple[str | int, ...], count: int) -> bool:
        """Add what another worker has counted (`tallies`); returns whether it is of a time that is shown."""
        match key:
            case ("day", int(number), str(name)) if number in self.history.days or number == self._day:
                counts = self.history.day(number)
                setattr(counts, name, getattr(counts, name) + count)
            case ("minute", int(number), which):
                minute = next((each for each in self._minutes if each.number == number), None)
                if minute is None:
                    return False
                minute.served_bytes += count if which == "served" else 0
                minute.fetched_bytes += count if which == "fetched" else 0
            case ("read", str(registry), str(name), which):
                more = Reads(count * (which == "requests"), count * (which == "hits"), count * (which == "bytes"))
                self.busiest.add(Registry.parse(registry), name, more)
            case _:
                return False
        return True

    def _turn(self, now_s: float) -> None:
        """Begin the minute, and perhaps the day, of this moment. A clock that was set back changes neither."""
        number, day = int(now_s // 60), day_of(now_s)
        if number > self._minutes[-1].number:
            self._minutes.append(Minute(number))
        self._minute_ends_s = (number + 1) * 60.0
        if day > self._day:
            self._day = day
            self._today = self.history.day(day)
            self.busiest.clear()
            self.busiest_since_s = day * float(DAY_S)

    # What the rooms below count by themselves.

    def look(self) -> None:
        """Take over what came from registries, how far downloads are, and what is left of quotas."""
        if not self._core.ready:
            return
        now_s = self._clock()
        if now_s >= self._minute_ends_s:
            self._turn(now_s)
        fetched_bytes = sum(self._core.upstream.meter.received_bytes.values())
        grown_bytes = fetched_bytes - self._fetched_bytes
        self._fetched_bytes = fetched_bytes
        self._today.fetched_bytes += grown_bytes
        self._minutes[-1].fetched_bytes += grown_bytes
        if self._core.store.is_open:
            self._core.downloads.look(self._core.store.running_ingests())
        self._look_at_quotas()

    def _look_at_quotas(self) -> None:
        for known in self._core.upstream.quotas.quotas():
            key = known.registry, known.caller
            seen = self._quotas.setdefault(key, deque(maxlen=QUOTA_SAMPLES))
            left = Left(known.quota.seen_at_s, known.quota.remaining)
            if len(seen) >= 2 and left.seen_at_s - seen[-2].seen_at_s < QUOTA_SAMPLE_INTERVAL_S:
                seen[-1] = left
            elif not seen or left.seen_at_s > seen[-1].seen_at_s:
                seen.append(left)
        while len(self._quotas) > MOST_QUOTAS:
            self._quotas.popitem(last=False)

    # What was counted.

    @property
    def now_s(self) -> float:
        """The time that is counted by."""
        return self._clock()

    @property
    def day(self) -> int:
        """Today's number, since 1970 (UTC)."""
        return self._day

    def today(self) -> DayCounts:
        """Return the counts since midnight (UTC)."""
        return self._today

    def week(self) -> list[tuple[int, DayCounts]]:
        """Return the last seven days with their numbers, today last."""
        numbers = range(self._day - WEEK_DAYS + 1, self._day + 1)
        return [(number, self.history.days.get(number, DayCounts())) for number in numbers]

    def hour(self) -> list[Minute]:
        """Return the last sixty minutes, the present one last."""
        known = {minute.number: minute for minute in self._minutes}
        last = self._minutes[-1].number
        return [known.get(number, Minute(number)) for number in range(last - MINUTES + 1, last + 1)]

    def troubles(self) -> list[Trouble]:
        """Return the last errors, the newest first."""
        return list(reversed(self._troubles.values()))

    def quota_seen(self, registry: str, caller: str) -> tuple[Left, ...]:
        """Return what was seen of a quota, the newest last."""
        return tuple(self._quotas.get((registry, caller), ()))

    # The file.

    def open(self) -> None:
        """Go on from what was counted before. Blocks for a small file; what cannot be read is said and left out."""
        try:
            history = read_history(self._core.settings.cache_directory)
        except StoreError as error:
            logger.warning("%s", error)
            return
        if history is not None:
            begun, self.history = self._today, history
            self._today = history.day(self._day)
            self._today.add(begun)

    def go_on_from(self, history: History) -> None:
        """Take the place of what was read from the file: another worker knows what was counted since."""
        self.history, self._today = history, history.day(self._day)

    async def run(self) -> None:
        """Look every second, and write every half a minute if this is the worker that does, until cancelled."""
        write_at_s = self._clock() + WRITE_INTERVAL_S
        while True:
            self.look()
            if self._clock() >= write_at_s and self._core.desk.is_here:
                write_at_s = self._clock() + WRITE_INTERVAL_S
                text = self.history.to_json()
                await asyncio.to_thread(self._write, text)
            await asyncio.sleep(LOOK_INTERVAL_S)

    def close(self) -> None:
        """Write what was counted last."""
        self.look()
        if self._core.desk.is_here:
            self._write(self.history.to_json())

    def _write(self, text: str) -> None:
        # The end may come while a thread writes: the last word must be the last file.
        with self._writing:
            if text == self._written:
                return
            try:
                write_history(self._core.settings.cache_directory, text)
            except StoreError as error:
                if str(error) != self._said:
                    logger.warning("%s", error)
                    self._said = str(error)
            else:
                self._written, self._said = text, ""


def _image(exchange: Exchange) -> str:
    match exchange.endpoint:
        case Manifest(name, reference):
            return f"{name}{'@' if ':' in str(reference) else ':'}{reference}"
        case Blob(name, _):
            return name
        case _:
            return ""
