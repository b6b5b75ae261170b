"""Which downloads run, who waits for each, and how fast they are: what an ingest itself does not know.

A download belongs to the store and not to a client; here it is noted who joined it, and forgotten when the client has
its answer, or when the download is over. For the event loop.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Blob
from regproxy.stack.exchange import Exchange
from regproxy.store.ingest import Ingest

SAMPLES = 6
"""Of how much has arrived: with one a second the speed is that of the last five seconds."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A client that gets its answer from a download."""

    exchange: Exchange
    client_ip: str


@dataclass(slots=True)
class Download:
    """One that runs."""

    digest: Digest
    began_s: float
    """When it was first seen, on the monotonic clock."""
    registry: str
    name: str
    """The repository that it was first asked for by."""
    size_bytes: int | None = None
    arrived_bytes: int = 0
    waiting: dict[int, Waiting] = field(default_factory=dict)
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    @property
    def bytes_per_s(self) -> float | None:
        """How fast it is now; None before there are two looks at it."""
        if len(self.samples) < 2:
            return None
        (began_s, before), (ended_s, after) = self.samples[0], self.samples[-1]
        return max(0, after - before) / (ended_s - began_s) if ended_s > began_s else None


@dataclass(frozen=True, slots=True)
class Shown:
    """A download as it is shown: those who wait at several workers wait for the same one."""

    digest: str
    registry: str
    name: str
    size_bytes: int | None
    arrived_bytes: int
    bytes_per_s: float | None
    for_s: float
    waiting: int
    clients: tuple[str, ...]

    def with_others(self, other: "Shown") -> "Shown":
        """Return both as one."""
        further, later = (self, other) if self.arrived_bytes >= other.arrived_bytes else (other, self)
        return replace(
            further,
            size_bytes=later.size_bytes if further.size_bytes is None else further.size_bytes,
            bytes_per_s=later.bytes_per_s if further.bytes_per_s is None else further.bytes_per_s,
            for_s=max(self.for_s, other.for_s),
            waiting=self.waiting + other.waiting,
            clients=tuple(sorted({*self.clients, *other.clients})),
        )


def together(downloads: Iterable[Shown]) -> list[Shown]:
    """Return each download once, the oldest first."""
    found: dict[str, Shown] = {}
    for each in downloads:
        known = found.get(each.digest)
        found[each.digest] = each if known is None else known.with_others(each)
    return sorted(found.values(), key=lambda each: each.for_s, reverse=True)


class Downloads:
    """All that run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[Digest, Download] = {}

    def joined(self, digest: Digest, exchange: Exchange, name: str, client_ip: str) -> None:
        """Note that a client gets its answer from the download of a digest."""
        download = self._running.get(digest)
        if download is None:
            download = self._running[digest] = Download(digest, self._clock(), str(exchange.registry), name)
        download.waiting[id(exchange)] = Waiting(exchange, client_ip)

    def answered(self, exchange: Exchange) -> None:
        """Forget a client that has its answer, or is gone."""
        if not self._running:
            return
        match exchange.endpoint:
            case Blob(_, digest) if (download := self._running.get(digest)) is not None:
                download.waiting.pop(id(exchange), None)
            case _:
                pass

    def look(self, ingests: Iterable[Ingest]) -> None:
        """Note how far each running download is, and forget what is over."""
        running = {ingest.digest: ingest for ingest in ingests}
        now_s = self._clock()
        for digest in [each for each in self._running if each not in running]:
            del self._running[digest]
        for digest, download in self._running.items():
            ingest = running[digest]
            download.size_bytes, download.arrived_bytes = ingest.size_bytes, ingest.arrived_bytes
            if not download.samples or now_s > download.samples[-1][0]:
                download.samples.append((now_s, ingest.arrived_bytes))

    def all(self) -> list[Download]:
        """Return what runs, the oldest first."""
        return sorted(self._running.values(), key=lambda download: download.began_s)

    def shown(self) -> list[Shown]:
        """Return what runs as it is shown, the oldest first."""
        return [
            Shown(
                str(each.digest),
                each.registry,
                each.name,
                each.size_bytes,
                each.arrived_bytes,
                each.bytes_per_s,
                max(0.0, self._clock() - each.began_s),
                len(each.waiting),
                tuple(sorted({waiting.client_ip for waiting in each.waiting.values()})),
            )
            for each in self.all()
        ]
