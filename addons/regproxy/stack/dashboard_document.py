"""The JSON document that the dashboard shows: what `statistics` counted, and how things stand now.

Bytes, seconds and Unix times throughout; the page makes words of them. Without `names` nothing in it names an image, an
account or a client, nor quotes a reason that may.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import assert_never

from regproxy.policy.breaker import Circuit, Closed, HalfOpen, Open
from regproxy.policy.client_setup import HUB, HUB_API, client_registries
from regproxy.policy.day_counts import DAY_S, DayCounts
from regproxy.policy.forecast import eviction_horizon, fill_bytes_per_s, quota_forecast
from regproxy.policy.readiness import Summary
from regproxy.stack.busiest import Reads
from regproxy.stack.core import Core
from regproxy.stack.downloads import Shown
from regproxy.stack.shared_metrics import shared_numbers
from regproxy.stack.statistics import WEEK_DAYS, Statistics, Trouble
from regproxy.store.eviction import Usage

MOST_IMAGES_SHOWN = 10
MOST_REGISTRIES_SHOWN = 30
MOST_QUOTAS_SHOWN = 30
MOST_DOWNLOADS_SHOWN = 50
MOST_CLIENTS_SHOWN = 10

type Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class DiskState:
    """What had to be looked up on the disk."""

    free_bytes: int
    """On the file system of the cache."""
    oldest_access_s: float | None
    """When what is evicted next was last read, Unix time; None for an empty cache."""
    usage: Usage
    """What the cache takes."""


def document(
    core: Core, statistics: Statistics, disk: DiskState | None, downloads: Sequence[Shown], *, names: bool
) -> Json:
    """Return the document; `disk` is None while the store is closed."""
    week = statistics.week()
    return {
        "at_s": statistics.now_s,
        "names": names,
        "today": _counts(statistics.today()),
        "week": _counts(statistics.history.sum_of(number for number, _ in week)),
        "days": [{"begins_s": number * DAY_S, **_counts(counts)} for number, counts in week],
        "hour": [
            {"begins_s": minute.number * 60, "served_bytes": minute.served_bytes, "fetched_bytes": minute.fetched_bytes}
            for minute in statistics.hour()
        ],
        "downloads": [_download(download, names=names) for download in downloads[:MOST_DOWNLOADS_SHOWN]],
        "images": list(_images(statistics, names=names)),
        "images_since_s": statistics.busiest_since_s,
        "registries": list(_registries(core))[:MOST_REGISTRIES_SHOWN],
        "quotas": list(_quotas(core, statistics, names=names))[:MOST_QUOTAS_SHOWN],
        "disk": None if disk is None else _disk(core, statistics, disk),
        "shared_store": shared_numbers(core),
        "readiness": None if core.readiness is None else _readiness(core.readiness, names=names),
        "errors": [_trouble(trouble, names=names) for trouble in statistics.troubles()],
    }


def _readiness(summary: Summary, *, names: bool) -> Json:
    return {
        "at_s": summary.at_s,
        "images": summary.images,
        "ready": summary.images - len(summary.wanting),
        "wanting": [
            {"registry": _familiar(registry), "image": image if names else None}
            for registry, image in summary.wanting[:MOST_IMAGES_SHOWN]
        ],
    }


def _counts(counts: DayCounts) -> Json:
    return {**asdict(counts), "saved_bytes": counts.saved_bytes, "hit_ratio": counts.hit_ratio}


def _download(download: Shown, *, names: bool) -> Json:
    return {
        "registry": _familiar(download.registry),
        "image": download.name if names else None,
        "digest": download.digest if names else None,
        "size_bytes": download.size_bytes,
        "arrived_bytes": download.arrived_bytes,
        "bytes_per_s": download.bytes_per_s,
        "for_s": download.for_s,
        "waiting": download.waiting,
        "clients": download.clients[:MOST_CLIENTS_SHOWN] if names else None,
    }


def _images(statistics: Statistics, *, names: bool) -> Iterator[Json]:
    if names:
        for registry, name, reads in statistics.busiest.top(MOST_IMAGES_SHOWN):
            yield {"registry": _familiar(str(registry)), "image": name, **_reads(reads)}
    else:
        for registry, reads in statistics.busiest.by_registry()[:MOST_IMAGES_SHOWN]:
            yield {"registry": _familiar(str(registry)), "image": None, **_reads(reads)}


def _reads(reads: Reads) -> Json:
    return {"requests": reads.requests, "hits": reads.hits, "served_bytes": reads.served_bytes}


def _registries(core: Core) -> Iterator[Json]:
    """Yield what gives no answer first, then who answers as far as is known."""
    upstream, now_s = core.upstream, time.monotonic()
    failures: dict[str, int] = {}
    for (registry, *_), count in (upstream.meter.failures + core.elsewhere.failures).items():
        name = _familiar(registry)
        failures[name] = failures.get(name, 0) + count
    told: set[str] = set()
    for origin, circuit in upstream.circuits.states().items():
        name = _familiar(origin.partition("://")[2])
        told.add(name)
        yield {"name": name, "failures": failures.get(name, 0), **_health(circuit, now_s)}
    for rest in upstream.quotas.rests():
        name = _familiar(rest.registry.partition("://")[2])
        if name not in told:
            told.add(name)
            reason = "answered 429: it is left alone for a while"
            yield _registry(name, "resting", failures, reason=reason, again_in_s=rest.remaining_s)
    asked = {_familiar(name) for name in upstream.meter.received_bytes + core.elsewhere.received_bytes}
    for name in (*sorted(asked), *failures, *client_registries(core.settings.registries)):
        if name not in told:
            told.add(name)
            yield _registry(name, "answers" if name in asked else "unknown", failures)


def _familiar(registry: str) -> str:
    """Return Docker Hub's name as it is in those of images."""
    return HUB if registry == HUB_API else registry


def _registry(name: str, state: str, failures: dict[str, int], **more: object) -> Json:
    return {"name": name, "failures": failures.get(name, 0), "state": state, **more}


def _health(circuit: Circuit, now_s: float) -> Json:
    match circuit:
        case Closed():
            return {"state": "answers"}
        case Open(outage):
            return {"state": "away", "for_s": now_s - outage.since_s, "reason": outage.reason}
        case HalfOpen(outage):
            return {"state": "tried", "for_s": now_s - outage.since_s, "reason": outage.reason}
        case _:
            assert_never(circuit)


def _quotas(core: Core, statistics: Statistics, *, names: bool) -> Iterator[Json]:
    """Yield the quotas that still say something, the lowest first."""
    known = [each for each in core.upstream.quotas.quotas() if not each.quota.has_passed(statistics.now_s)]
    for each in sorted(known, key=lambda each: each.quota.remaining / (each.quota.limit or 1)):
        quota = each.quota
        outlook, runs_out_at_s = quota_forecast(statistics.quota_seen(each.registry, each.caller), quota.passes_at_s)
        yield {
            "registry": _familiar(each.registry.partition("://")[2]),
            "account": each.caller if names else None,
            "remaining": quota.remaining,
            "limit": quota.limit,
            "window_s": quota.window_s,
            "seen_at_s": quota.seen_at_s,
            "is_low": quota.is_low,
            "outlook": outlook,
            "runs_out_at_s": runs_out_at_s,
        }


def _disk(core: Core, statistics: Statistics, disk: DiskState) -> Json:
    settings, usage, now_s = core.settings, disk.usage, statistics.now_s
    room_bytes = max(
        0, min(settings.cache_max_size_bytes - usage.used_bytes, disk.free_bytes - settings.cache_min_free_bytes)
    )
    fetched = statistics.history.sum_of(number for number, _ in statistics.week()).fetched_bytes
    begins_s = max(statistics.history.since_s, statistics.week()[0][0] * DAY_S)
    rate = fill_bytes_per_s(fetched, min(now_s - begins_s, WEEK_DAYS * DAY_S))
    oldest_age_s = None if disk.oldest_access_s is None else max(0.0, now_s - disk.oldest_access_s)
    horizon = None
    if rate is not None and oldest_age_s is not None:
        horizon = asdict(
            eviction_horizon(
                rate,
                used_bytes=usage.used_bytes,
                room_bytes=room_bytes,
                oldest_age_s=oldest_age_s,
                inactive_s=settings.cache_inactive_s,
            )
        )
    return {
        "used_bytes": usage.used_bytes,
        "partial_bytes": usage.partial_bytes,
        "cap_bytes": settings.cache_max_size_bytes,
        "room_bytes": room_bytes,
        "free_bytes": disk.free_bytes,
        "entries": usage.entries,
        "oldest_age_s": oldest_age_s,
        "inactive_s": settings.cache_inactive_s,
        "fills_bytes_per_day": None if rate is None else rate * DAY_S,
        "horizon": horizon,
    }


def _trouble(trouble: Trouble, *, names: bool) -> Json:
    return {
        "registry": _familiar(trouble.registry),
        "image": trouble.image if names else None,
        "status": trouble.status,
        "words": trouble.words,
        "reason": (trouble.reason or None) if names else None,
        "at_s": trouble.at_s,
        "count": trouble.count,
        "client_ip": trouble.client_ip if names else None,
        "user_agent": trouble.user_agent if names else None,
    }
