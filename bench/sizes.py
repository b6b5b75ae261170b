"""How much is done in a run: the full one of the published results, and a quick one for development."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The loads of all rows."""

    repeats: int = 5
    large_blob_bytes: int = 1024 * MIB
    cold_blob_bytes: int = 512 * MIB
    streams: int = 4
    """Clients that pull the large blob at once."""
    followers: int = 8
    """Clients that want the same cold blob at once."""
    hey_s: int = 4
    """How long requests are counted."""
    hey_connections: int = 8
    slow_clients: int = 200
    slow_rate_bytes_per_s: int = 200_000
    warm_pulls: int = 1000
    """Pulls before memory is first read, so that pools and caches have their size."""
    pulls: int = 4000
    """Pulls through which the growth of memory is read: with 1,000, its ups and downs alone look like 15 MiB."""


FULL = Sizes()
QUICK = Sizes(
    repeats=2,
    large_blob_bytes=256 * MIB,
    cold_blob_bytes=128 * MIB,
    hey_s=2,
    warm_pulls=50,
    pulls=200,
)

UPSTREAM_RATE_BYTES_PER_S = 40_000_000
"""What the slow upstream gives to each connection."""
SLOWLY_READ_BLOB_BYTES = 64 * MIB
SMALL_LAYERS, SMALL_LAYER_BYTES = 5, 3 * MIB // 10
LARGE_LAYERS, LARGE_LAYER_BYTES = 4, 64 * MIB
