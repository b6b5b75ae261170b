"""Where a blob's bytes go: what this room needs of the store's growing file."""

from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """The growing file; `regproxy.store.ingest.Ingest` is one."""

    size_bytes: int | None
    etag: str | None

    def missing_from(self) -> int:
        """Return the offset of the first byte that has not arrived."""
        ...

    def missing(self) -> tuple[tuple[int, int], ...]:
        """Return the holes (start, end) up to the known size."""
        ...

    async def begin(self, size_bytes: int | None, etag: str | None) -> None:
        """Announce the size that an upstream promises; a size that contradicts an earlier one may empty the file."""
        ...

    async def write_at(self, offset: int, chunks: Sequence[bytes]) -> None:
        """Write at an offset; bytes that are there already are passed over."""
        ...

    async def finish(self) -> None:
        """All bytes have arrived: verify and store."""
        ...
