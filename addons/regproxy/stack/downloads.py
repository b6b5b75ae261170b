"""Which downloads run, who waits for each, and how fast they are: what an ingest itself does not know.

A download belongs to the store and not to a client; here it is noted who joined it, and forgotten when the client has
its answer, or when the download is over. For the event loop.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

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
