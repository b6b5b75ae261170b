"""The last requests, in memory: for `why`, for who watches, and the sums for `status`.

A listener of the access log, so it must be quick: about 2 µs a request.
"""

import asyncio
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

from regproxy.oci.endpoint import Blob, Endpoint, Manifest
from regproxy.oci.names import Registry
from regproxy.policy.tiers import RequestClass
from regproxy.stack.access_log import Entry, UpstreamPart
from regproxy.stack.exchange import CacheStatus

KEPT = 5000
"""About 1 kB each."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What became of one request. No credential is in it, nor a query, which may be a signature."""

    number: int
    """Counts up: from 1, or as `RecentRequests.is_one_of_many` says."""
    request_id: str
    at_s: float
    """Unix time of its end."""
    method: str
    registry: str
    name: str
    """Repository; empty for what is none's."""
    reference: str
    """Tag or digest."""
    path: str
    status: int | None
    cache_status: str
    request_class: str
    sent_bytes: int
    duration_s: float
    client_ip: str
    upstream: str
    """Hosts and addresses that were asked; empty when nobody was."""
    fetched_bytes: str
    credential: str
    source: str
    """`bucket` for what came from the shared store."""
    error: str


type _Noted = tuple[
    tuple[int, str, float, float],
    tuple[str, str, int | None, int, str],
    tuple[Registry, Endpoint, CacheStatus, RequestClass],
    UpstreamPart,
    str,
]
"""What is kept of a request; most are never looked at, so `Recent` is made when one is."""


class RecentRequests:
    """A ring; for the event loop."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[_Noted] = deque(maxlen=kept)
        self._number = 0
        self.is_one_of_many = False
        """Whether numbers are moments (microseconds, monotonic), for other processes have numbers, too."""
        self._added = asyncio.Event()
        self.by_cache_status: Counter[str] = Counter()
        """Requests since the start."""
        self.sent_bytes = 0
        """Bytes of bodies since the start."""

    @property
    def newest(self) -> int:
        """The number of the last request, here or elsewhere."""
        return _now() if self.is_one_of_many else self._number

    def note(self, entry: Entry) -> None:
        """Keep a request that has been answered."""
        exchange = entry.exchange
        if exchange is None:
            return
        self._number = max(self._number + 1, _now()) if self.is_one_of_many else self._number + 1
        self.by_cache_status[exchange.cache_status] += 1
        self.sent_bytes += entry.sent_bytes
        self._ring.append(
            (
                (self._number, exchange.request_id, time.time(), entry.began_s),
                (entry.method, entry.target, entry.status, entry.sent_bytes, entry.client_ip),
                (exchange.registry, exchange.endpoint, exchange.cache_status, exchange.request_class),
                entry.upstream,
                entry.error or exchange.error or "",
            )
        )
        self._added.set()

    def find(self, request_id: str) -> Recent | None:
        """Return the request with this id, if it is still here."""
        return next((_recent(each) for each in reversed(self._ring) if each[0][1] == request_id), None)

    def about(self, registry: str, name: str, reference: str, most: int) -> list[Recent]:
        """Return the last requests for content; newest first; an empty text matches all."""
        found = []
        for each in map(_recent, reversed(self._ring)):
            wanted = ((registry, each.registry), (name, each.name), (reference, each.reference))
            if all(text in ("", own) for text, own in wanted):
                found.append(each)
                if len(found) == most:
                    break
        return found

    def after(self, number: int, most: int) -> list[Recent]:
        """Return what came after a number, oldest first."""
        newer = takewhile(lambda noted: noted[0][0] > number, reversed(self._ring))
        return [_recent(noted) for noted in [*newer][::-1][:most]]

    async def next_one(self, wait_s: float) -> None:
        """Wait for a request, so long at most."""
        self._added.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._added.wait(), wait_s)


def _now() -> int:
    return time.monotonic_ns() // 1000


def _recent(noted: _Noted) -> Recent:
    """Make of what was noted what is shown."""
    (number, request_id, at_s, began_s), (method, target, status, sent_bytes, client_ip), of, upstream, error = noted
    registry, endpoint, cache_status, request_class = of
    name, reference = "", ""
    match endpoint:
        case Manifest(name, tag_or_digest):
            reference = str(tag_or_digest)
        case Blob(name, digest):
            reference = str(digest)
        case _:
            pass
    return Recent(
        number=number,
        request_id=request_id,
        at_s=at_s,
        method=method,
        registry=str(registry),
        name=name,
        reference=reference,
        path=target.partition("?")[0],
        status=status,
        cache_status=cache_status.value,
        request_class=request_class.value,
        sent_bytes=sent_bytes,
        duration_s=max(0.0, at_s - began_s),
        client_ip=client_ip,
        upstream=upstream.addresses,
        fetched_bytes=upstream.bytes,
        credential=upstream.credential,
        source=upstream.source,
        error=error,
    )
