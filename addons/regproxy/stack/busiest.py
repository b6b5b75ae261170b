"""The images that are read most, in bounded memory.

Names come from clients, but only a read with a good answer counts, so each was an image once. When there are too many,
the half that brought least is forgotten: what is busy is never in it for long.
"""

from dataclasses import dataclass

from regproxy.oci.names import Registry

MOST_IMAGES = 1000


@dataclass(slots=True)
class Reads:
    """What was read of one repository."""

    requests: int = 0
    hits: int = 0
    served_bytes: int = 0


class Busiest:
    """Counts reads by repository."""

    def __init__(self, most: int = MOST_IMAGES) -> None:
        self._most = most
        self._reads: dict[tuple[Registry, str], Reads] = {}

    def count(self, registry: Registry, name: str, served_bytes: int, *, hit: bool) -> None:
        """Count one read."""
        self.add(registry, name, Reads(1, int(hit), served_bytes))

    def add(self, registry: Registry, name: str, more: Reads) -> None:
        """Add reads that were counted."""
        key = registry, name
        reads = self._reads.get(key)
        if reads is None:
            if len(self._reads) >= self._most:
                self._reads = dict(self._ranked()[: self._most // 2])
            reads = self._reads[key] = Reads()
        reads.requests += more.requests
        reads.hits += more.hits
        reads.served_bytes += more.served_bytes

    def all(self) -> list[tuple[Registry, str, Reads]]:
        """Return all that are remembered."""
        return [(registry, name, reads) for (registry, name), reads in self._reads.items()]

    def clear(self) -> None:
        """Begin anew."""
        self._reads.clear()

    def top(self, number: int) -> list[tuple[Registry, str, Reads]]:
        """Return those that brought most bytes, then most requests."""
        return [(registry, name, reads) for (registry, name), reads in self._ranked()[:number]]

    def by_registry(self) -> list[tuple[Registry, Reads]]:
        """Return the same, summed by registry."""
        sums: dict[Registry, Reads] = {}
        for (registry, _), reads in self._reads.items():
            total = sums.setdefault(registry, Reads())
            total.requests += reads.requests
            total.hits += reads.hits
            total.served_bytes += reads.served_bytes
        return sorted(sums.items(), key=lambda each: _weight(each[1]), reverse=True)

    def _ranked(self) -> list[tuple[tuple[Registry, str], Reads]]:
        return sorted(self._reads.items(), key=lambda each: _weight(each[1]), reverse=True)


def _weight(reads: Reads) -> tuple[int, int]:
    return reads.served_bytes, reads.requests
