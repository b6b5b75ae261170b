"""`python -m bench.growth`: what the number of cached entries costs, in the store alone, without network or clients.

For each count a store is filled with so many contents (of one disk block) and as many tag records. Then each kind of
access is timed, one after the other. Figures are medians over many accesses of keys that were chosen at random.
"""

import argparse
import asyncio
import hashlib
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.index import Index
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.records import TagKey, TagRecord, content_key

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
ACCESSES = 500
_ROWS_AT_A_TIME = 10_000
_ROOM_BYTES = 1 << 50
_NOW_S = 1_700_000_000.0


def main() -> int:
    """Measure, print a table, return 0."""
    parser = argparse.ArgumentParser(prog="bench.growth", description="Measure the store with many entries.")
    parser.add_argument("--entries", type=int, nargs="+", default=COUNTS, metavar="N")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made; a million entries take 5 GiB")
    chosen = parser.parse_args()
    for count in chosen.entries:
        with tempfile.TemporaryDirectory(prefix="growth-", dir=chosen.work) as name:
            figures = measure(Path(name), count)
        line = "  ".join(f"{title} {figure:.4g}" for title, figure in figures.items())
        sys.stdout.write(f"{count:>9} contents and tags  {line}\n")
        sys.stdout.flush()
    return 0


def measure(directory: Path, count: int) -> dict[str, float]:
    """Return the figures for one count."""
    fill(directory, count)
    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = Store(directory, _ROOM_BYTES, 60 * 86400.0, 0, clock=lambda: _NOW_S)
    began_s = time.perf_counter()
    store.open()
    opened_s = time.perf_counter() - began_s
    try:
        figures = asyncio.run(_accesses(store, count))
    finally:
        store.close()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_bytes
    index_bytes = (directory / "cache.db").stat().st_size
    evicting = asyncio.run(_evictions(directory, count))
    return {
        "open s": opened_s,
        **figures,
        "evict one us": evicting,
        "index B/entry": index_bytes / (2 * count),
        "memory MiB": grown_kib / 1024,
    }


def fill(directory: Path, count: int) -> None:
    """Make content files and rows directly, many in a transaction: through the store it would take hours."""
    layout = Layout(directory)
    layout.prepare()
    index = Index(directory)
    scratch = directory / "partial" / "fill"
    for first in range(0, count, _ROWS_AT_A_TIME):
        with index.transact():
            for number in range(first, min(first + _ROWS_AT_A_TIME, count)):
                scratch.write_bytes(_body(number))
                index.adopt(content_key(_digest(number)), scratch, OCI_MANIFEST, _NOW_S - count + number)
                index.put_text(_tag(number).text(), _record(number).to_json(), _NOW_S - count + number)
    index.close()


async def _accesses(store: Store, count: int) -> dict[str, float]:
    picked = random.Random(7).choices(range(count), k=ACCESSES)  # noqa: S311 - not a secret

    async def open_content(number: int) -> None:
        stored = store.open_content(_digest(number))
        assert stored is not None
        stored.close()

    async def tag_record(number: int) -> None:
        assert await store.tag_record(_tag(number)) is not None

    async def manifest(number: int) -> None:
        assert await store.manifest(_digest(number)) is not None

    async def put_content(number: int) -> None:
        await store.put_content(_digest(count + number), _body(count + number), OCI_MANIFEST)

    figures = {
        "open blob us": await _median_us(open_content, picked),
        "tag from disk us": await _median_us(tag_record, picked),
        "tag from memory us": await _median_us(tag_record, picked),
        "manifest from disk us": await _median_us(manifest, picked),
        "manifest from memory us": await _median_us(manifest, picked),
        "store us": await _median_us(put_content, range(ACCESSES)),
    }
    began_s = time.perf_counter()
    await store.evict_inactive()
    return {**figures, "write 500 access times ms": (time.perf_counter() - began_s) * 1e3}


async def _evictions(directory: Path, count: int) -> float:
    """Return the median time to store when one content has to go for it, in microseconds."""
    index_bytes = on_disk_bytes((directory / "cache.db").stat().st_size)
    store = Store(directory, index_bytes + count * 4096, 60 * 86400.0, 0, clock=lambda: _NOW_S)
    store.open()

    async def put_content(number: int) -> None:
        await store.put_content(_digest(-1 - number), _body(-1 - number), OCI_MANIFEST)

    try:
        return await _median_us(put_content, range(100))
    finally:
        store.close()


async def _median_us(access: Callable[[int], Awaitable[None]], numbers: Sequence[int]) -> float:
    times_s = []
    for number in numbers:
        began_s = time.perf_counter()
        await access(number)
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s) * 1e6


def _body(number: int) -> bytes:
    return b'{"schemaVersion":2,"number":%d}' % number


def _digest(number: int) -> Digest:
    return Digest("sha256", hashlib.sha256(_body(number)).hexdigest())


def _tag(number: int) -> TagKey:
    return TagKey("registry.example", f"team/app-{number % 1000}", f"build-{number}", (OCI_MANIFEST,))


def _record(number: int) -> TagRecord:
    return TagRecord(Descriptor(OCI_MANIFEST, _digest(number), len(_body(number))), _NOW_S)


if __name__ == "__main__":
    sys.exit(main())
