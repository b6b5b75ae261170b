"""Status: what the proxy does now, in numbers."""

import os
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

from regproxy import __version__
from regproxy.policy.breaker import Circuit, Closed, HalfOpen, Open
from regproxy.stack.admin.images import age_s
from regproxy.stack.admin.ingests import Ingests
from regproxy.stack.admin.queries import COUNT, FLAG, NUMBER, TEXT, Json, Schema, array, mapping, nullable, record
from regproxy.stack.core import Core
from regproxy.stack.recent_requests import RecentRequests
from regproxy.stack.shared_metrics import shared_numbers

STATUS: Schema = record(
    version=TEXT,
    uptime_s=NUMBER,
    workers=array(record(number=COUNT, pid=COUNT, uptime_s=NUMBER, requests=COUNT, memory_bytes=COUNT)),
    cache=record(
        directory=TEXT,
        content_bytes=COUNT,
        partial_bytes=COUNT,
        index_bytes=COUNT,
        used_bytes=COUNT,
        cap_bytes=COUNT,
        entries=COUNT,
        oldest_use_age_s=nullable(NUMBER),
        pins=COUNT,
    ),
    shared_store=nullable(
        record(
            url=TEXT,
            reading=FLAG,
            writing=FLAG,
            waiting=COUNT,
            reads=mapping(COUNT),
            read_bytes=COUNT,
            written=COUNT,
            written_bytes=COUNT,
        )
    ),
    requests=record(total=COUNT, by_cache_status=mapping(COUNT), sent_bytes=COUNT, fetched_bytes=mapping(COUNT)),
    breakers=array(record(upstream=TEXT, state=TEXT, reason=TEXT, age_s=NUMBER)),
    quotas=array(
        record(registry=TEXT, account=TEXT, remaining=COUNT, limit=nullable(COUNT), window_s=nullable(NUMBER))
    ),
    rests=array(record(registry=TEXT, account=TEXT, path=TEXT, remaining_s=NUMBER)),
    ingests=array(record(digest=TEXT, state=TEXT, arrived_bytes=COUNT, size_bytes=nullable(COUNT))),
)
"""`reading`, `writing`: whether the bucket answers; `waiting`: contents that are to be written to it."""


_TOPIC = "worker"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Status:
    """Knows since when the proxy runs."""

    def __init__(self, core: Core, recent: RecentRequests) -> None:
        self._core, self._recent = core, recent
        self._began_s = time.monotonic()
        self._ingests = Ingests(core)
        core.desk.on_question(_TOPIC, self._answer)

    async def described(self) -> Json:
        """Describe everything. Raises StoreError."""
        workers: list[dict[str, Any]] = [self._worker(), *await self._core.desk.others(_TOPIC)]
        await self._core.desk.have_told()
        began_s = self._core.desk.began_s or self._began_s
        return {
            "version": __version__,
            "uptime_s": round(time.monotonic() - began_s, 1),
            "workers": [*sorted(workers, key=itemgetter("number"))],
            "cache": await self._cache(),
            "shared_store": self._shared_store(),
            "requests": self._requests(),
            "breakers": self._breakers(),
            "quotas": [
                {
                    "registry": known.registry,
                    "account": known.caller,
                    "remaining": known.quota.remaining,
                    "limit": known.quota.limit,
                    "window_s": known.quota.window_s,
                }
                for known in self._core.upstream.quotas.quotas()
            ],
            "rests": [
                {
                    "registry": rest.registry,
                    "account": rest.caller,
                    "path": rest.path,
                    "remaining_s": round(rest.remaining_s, 1),
                }
                for rest in self._core.upstream.quotas.rests()
            ],
            "ingests": await self._ingests.described(),
        }

    async def _answer(self, _: object) -> dict[str, Any]:
        return self._worker()

    def _worker(self) -> dict[str, Any]:
        return {
            "number": self._core.desk.number,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "requests": self._recent.by_cache_status.total(),
            "memory_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES,
        }

    async def _cache(self) -> dict[str, Json]:
        store = self._core.store
        usage, oldest_s = await store.look_at_usage(), await store.oldest_access_s()
        return {
            "directory": str(store.directory),
            "content_bytes": usage.content_bytes,
            "partial_bytes": usage.partial_bytes,
            "index_bytes": usage.index_bytes,
            "used_bytes": usage.used_bytes,
            "cap_bytes": self._core.settings.cache_max_size_bytes,
            "entries": usage.entries,
            "oldest_use_age_s": age_s(oldest_s, time.time()),
            "pins": len(await store.inventory.pins()),
        }

    def _shared_store(self) -> Json:
        numbers = shared_numbers(self._core)
        return None if numbers is None else {"url": str(self._core.settings.store_url), **numbers}

    def _requests(self) -> dict[str, Json]:
        elsewhere = self._core.elsewhere
        counts = self._recent.by_cache_status + elsewhere.by_cache_status
        fetched = self._core.upstream.meter.received_bytes + elsewhere.received_bytes
        return {
            "total": counts.total(),
            "by_cache_status": {status or "NONE": count for status, count in sorted(counts.items())},
            "sent_bytes": self._recent.sent_bytes + elsewhere.sent_bytes,
            "fetched_bytes": {str(name): count for name, count in fetched.items()},
        }

    def _breakers(self) -> list[Json]:
        now_s = time.monotonic()
        told = (_breaker(origin, circuit, now_s) for origin, circuit in self._core.upstream.circuits.states().items())
        return [each for each in told if each is not None]


def _breaker(origin: str, circuit: Circuit, now_s: float) -> dict[str, Json] | None:
    match circuit:
        case Closed():
            return None
        case Open(outage):
            state = "open"
        case HalfOpen(outage):
            state = "half open"
    return {
        "upstream": origin,
        "state": state,
        "reason": outage.reason,
        "age_s": round(max(0.0, now_s - outage.since_s), 1),
    }
