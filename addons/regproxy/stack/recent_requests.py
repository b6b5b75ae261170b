"""The last requests, in memory: for `why`, for who watches, and the sums for `status`.

A listener of the access log, so it must be quick: about 2 µs a request.
"""

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass

from regproxy.oci.endpoint import Blob, Manifest
from regproxy.stack.access_log import Entry

KEPT = 5000
"""About 1 kB each."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What became of one request. No credential is in it, nor a query, which may be a signature."""

    number: int
    """Counts up from 1."""
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
    error: str


class RecentRequests:
    """A ring; for the event loop."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[Recent] = deque(maxlen=kept)
        self._number = 0
        self._added = asyncio.Event()
        self.by_cache_status: Counter[str] = Counter()
        """Requests since the start."""
        self.sent_bytes = 0
        """Bytes of bodies since the start."""

    @property
    def newest(self) -> int:
        """The number of the last request."""
        return self._number

    def note(self, entry: Entry) -> None:
        """Keep a request that has been answered."""
        exchange, now_s = entry.exchange, time.time()
        if exchange is None:
            return
        self._number += 1
        self.by_cache_status[exchange.cache_status.value] += 1
        self.sent_bytes += entry.sent_bytes
        name, reference = "", ""
        match exchange.endpoint:
            case Manifest(name, tag_or_digest):
                reference = str(tag_or_digest)
            case Blob(name, digest):
                reference = str(digest)
            case _:
                pass
        self._ring.append(
            Recent(
                self._number,
                exchange.request_id,
                now_s,
                entry.method,
                str(exchange.registry),
                name,
                reference,
                entry.target.partition("?")[0],
                entry.status,
                exchange.cache_status.value,
                exchange.request_class.value,
                entry.sent_bytes,
                max(0.0, now_s - entry.began_s),
                entry.client_ip,
                entry.upstream.addresses,
                entry.upstream.bytes,
                entry.upstream.credential,
                entry.error or exchange.error or "",
            )
        )
        self._added.set()

    def find(self, request_id: str) -> Recent | None:
        """Return the request with this id, if it is still here."""
        return next((each for each in reversed(self._ring) if each.request_id == request_id), None)

    def about(self, registry: str, name: str, reference: str, most: int) -> list[Recent]:
        """Return the last requests for content; newest first; an empty text matches all."""
        found = []
        for each in reversed(self._ring):
            wanted = ((registry, each.registry), (name, each.name), (reference, each.reference))
            if all(text in ("", own) for text, own in wanted):
                found.append(each)
                if len(found) == most:
                    break
        return found

    async def after(self, number: int, wait_s: float, most: int) -> list[Recent]:
        """Return what came after a number, oldest first; waits for the first of them, so long at most."""
        deadline_s = time.monotonic() + wait_s
        while self._number <= number and (left_s := deadline_s - time.monotonic()) > 0:
            self._added.clear()
            try:
                await asyncio.wait_for(self._added.wait(), left_s)
            except TimeoutError:
                break
        newer = min(len(self._ring), max(0, self._number - number))
        return [self._ring[index] for index in range(len(self._ring) - newer, len(self._ring))][:most]
