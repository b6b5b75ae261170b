"""The store as operators see it: what is there, by which names, and what they may do with it.

Nothing here is on the way of a pull but `note_source`. Large answers are collected in steps, so that pulls that need
the index wait for one step at most.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.oci.references import References, references
from regproxy.policy.access import Repository
from regproxy.store.errors import translated
from regproxy.store.eviction import Room
from regproxy.store.growing import submit
from regproxy.store.hot import HotRecords
from regproxy.store.index import Index
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.pins import PIN_PREFIX, Pin, read_pins
from regproxy.store.pulls import PULL_PREFIX, Pulled
from regproxy.store.records import TAG_PREFIX, TagRecord, digest_of_key, read_tag_record, tag_key_prefix
from regproxy.store.recovery import Doubts, is_true_to_name
from regproxy.store.sources import SOURCE_PREFIX, Source

_logger = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 5000
_MANIFESTS_AT_A_TIME = 200
_LARGEST_MANIFEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One content."""

    digest: Digest
    size_bytes: int
    """On the disk, in whole blocks."""
    used_at_s: float
    """Unix time; up to 10 s late."""
    media_type: str
    """Empty for a blob."""


@dataclass(frozen=True, slots=True)
class NamedTag:
    """One record of a tag: what it means for clients that accept the same."""

    registry: str
    name: str
    tag: str
    record: TagRecord


class Inventory:
    """Made for one question, or a few in a row; StoreError when the store is closed meanwhile."""

    def __init__(self, layout: Layout, ledger: Ledger, hot: HotRecords, doubts: Doubts, hash_pool: Executor) -> None:
        self._layout, self._ledger, self._hot = layout, ledger, hot
        self._doubts, self._hash_pool = doubts, hash_pool

    async def contents(self) -> dict[Digest, StoredRow]:
        """Return all content of the index."""
        await self._ledger.alter("write the access times", lambda _, room: room.flush())
        found: dict[Digest, StoredRow] = {}
        number = 0
        while rows := await self._ledger.inspect("list the content", _rows_after(number)):
            number = rows[-1][0]
            for _, key, size_bytes, used_at_s, media_type in rows:
                digest = digest_of_key(key)
                found[digest] = StoredRow(digest, size_bytes, used_at_s, media_type)
        return found

    async def tags(self) -> list[NamedTag]:
        """Return all tag records; one that cannot be read is passed over."""
        texts = await self._ledger.inspect("list the tags", lambda index: index.texts(TAG_PREFIX))
        named = (_named_tag(key, text) for key, text in texts.items())
        return [each for each in named if each is not None]

    async def sources(self) -> list[Source]:
        """Return by which names manifests are known."""
        texts = await self._ledger.inspect("list the sources", lambda index: index.texts(SOURCE_PREFIX))
        found = []
        for key, text in texts.items():
            try:
                found.append(Source.read(key, text))
            except ValueError as error:
                _logger.warning("ignoring the row %s: %s", key[:300], error)
        return found

    async def pulls(self) -> list[Pulled]:
        """Return by which names clients pulled."""
        await self._ledger.alter("write the access times", lambda _, room: room.flush())
        texts = await self._ledger.inspect("list the pulls", lambda index: index.texts(PULL_PREFIX))
        return [Pulled.read(key, text) for key, text in texts.items()]

    async def forget_pulls(self, pulls: Iterable[Pulled]) -> None:
        """Forget that something was pulled."""
        keys = [pulled.key for pulled in pulls]
        await self._ledger.alter("forget pulls", lambda index, _: index.discard(keys))

    async def note_source(self, source: Source) -> None:
        """Remember where a manifest came from."""
        now_s = source.fetched_at_s
        text = source.to_json()
        await self._ledger.alter("note a source", lambda index, _: index.put_text(source.key, text, now_s))

    async def graph(self, manifests: Iterable[StoredRow]) -> dict[Digest, References]:
        """Return what stored manifests name, read from their files; one that is gone is left out."""
        known = [row for row in manifests if row.media_type and row.size_bytes <= _LARGEST_MANIFEST_BYTES]
        graph: dict[Digest, References] = {}
        for first in range(0, len(known), _MANIFESTS_AT_A_TIME):
            graph |= await asyncio.to_thread(self._read_some, known[first : first + _MANIFESTS_AT_A_TIME])
        return graph

    async def remove(self, digests: Iterable[Digest]) -> None:
        """Remove content, pinned or not."""
        gone = list(digests)
        for digest in gone:
            self._hot.drop_manifest(digest)
            self._doubts.settle(digest)
        await self._ledger.alter("remove content", lambda _, room: room.purge(gone))
        for digest in gone:
            self._hot.drop_manifest(digest)  # a reader may have brought it back meanwhile

    async def logins(self, repository: Repository, since_s: float) -> int:
        """Return how many logins the registry let read a repository since that Unix time."""
        return await self._ledger.inspect("count logins", lambda index: index.access.logins(repository, since_s))

    async def forget_sources(self, sources: Iterable[Source]) -> None:
        """Forget by which name manifests were known."""
        keys = [source.key for source in sources]
        await self._ledger.alter("forget sources", lambda index, _: index.discard(keys))

    async def verify(self, digest: Digest) -> bool:
        """Hash one content anew; what is wrong is removed. True also for what has gone or was stored anew meanwhile."""
        file = await submit(self._hash_pool, self._layout.content_file, digest)
        if await is_true_to_name(self._hash_pool, self._layout, digest) or not self._layout.content(digest).exists():
            return True
        self._hot.drop_manifest(digest)
        is_gone = await self._ledger.drop(digest, file)
        self._doubts.settle(digest)
        self._hot.drop_manifest(digest)
        return not is_gone

    # Pins.

    async def pins(self) -> list[Pin]:
        """Return what is kept for good, by target."""
        texts = await self._ledger.inspect("list the pins", lambda index: index.texts(PIN_PREFIX))
        return sorted(read_pins(texts.values()), key=lambda pin: pin.target)

    async def put_pin(self, pin: Pin) -> None:
        """Keep something for good, or renew what is known of it."""

        def put_pin(index: Index, room: Room) -> None:
            index.put_text(pin.key, pin.to_json(), pin.pinned_at_s)
            room.read_pins()

        await self._ledger.alter("pin", put_pin)

    async def drop_pin(self, target: str) -> None:
        """Let something go when its time comes."""

        def drop_pin(index: Index, room: Room) -> None:
            index.discard([f"{PIN_PREFIX}{target}"])
            room.read_pins()

        await self._ledger.alter("unpin", drop_pin)

    def _read_some(self, rows: list[StoredRow]) -> Mapping[Digest, References]:
        found: dict[Digest, References] = {}
        for row in rows:
            path = self._layout.content(row.digest)
            with translated("read", path, "check the disk"):
                try:
                    found[row.digest] = references(path.read_bytes())
                except FileNotFoundError:
                    continue
        return found


def tag_prefix_of(tag: NamedTag) -> str:
    """Return how the keys of a tag's records begin."""
    return tag_key_prefix(tag.registry, tag.name, tag.tag)


def _rows_after(number: int) -> Callable[[Index], list[tuple[int, str, int, float, str]]]:
    return lambda index: index.contents_after(number, _ROWS_AT_A_TIME)


def _named_tag(key: str, text: str) -> NamedTag | None:
    place = key.removeprefix(TAG_PREFIX).partition("|")[0]
    repository, _, tag = place.rpartition(":")
    registry, _, name = repository.partition("/")
    record = read_tag_record(key, text)
    return None if record is None else NamedTag(registry, name, tag, record)
