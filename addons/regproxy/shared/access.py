"""What replicas tell one another of who may read what: whom a registry let in, which repository has a content.

It is looked up when the own memory is not enough, and a moment later not again. What a registry took back is noted
(`shared.notes`) until the bucket has it, and counts for more than an older word of the bucket. What clients have proven
with logins of their own is not shared: the key with which those are hashed never leaves a replica's directory, and each
replica asks the registry itself.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Holder, Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.policy.shared_records import SharedOpenness
from regproxy.shared.bucket import ConditionFailed
from regproxy.shared.errands import Errands
from regproxy.shared.lately import Lately
from regproxy.shared.link import BucketDown
from regproxy.shared.notes import Notes
from regproxy.shared.paths import challenge_path, holder_path, holders_prefix, is_repository, repository_path
from regproxy.shared.records import HolderRecord, RepositoryRecord
from regproxy.shared.sealed import SealedRecords
from regproxy.store.content import Store
from regproxy.store.crew.sharing import Claim
from regproxy.store.errors import StoreError

_logger = logging.getLogger(__name__)

_MOST = 20_000
_TRIES = 3
_AGAIN_S = 1.0


class SharedAccess:
    """The records of who may read, of an open store. Without the bucket there is nothing to learn."""

    def __init__(self, store: Store, records: SealedRecords, errands: Errands, access_ttl_s: float) -> None:
        self._store, self._records, self._errands = store, records, errands
        self._worth_s = access_ttl_s / 4
        self._notes = Notes(store.directory / "refusals")
        self._repositories: Lately[Repository, None] = Lately()
        self._contents: Lately[tuple[Repository, Digest], None] = Lately()
        self._challenges: Lately[Registry, str | None] = Lately()
        self._own: OrderedDict[Repository, SharedOpenness] = OrderedDict()
        self._told: OrderedDict[tuple[Repository, Digest], int] = OrderedDict()

    @property
    def untold(self) -> int:
        """How many refusals of all workers the bucket has not taken yet. Lists a directory."""
        return len(self._notes.paths())

    async def run(self, claim: Callable[[str], Claim] | None, is_up: Callable[[], bool]) -> None:
        """Tell what is noted as soon as the bucket answers, until cancelled; of several workers one does."""
        if claim is not None:
            turn = claim("refusals that are left")
            while not turn.is_granted:
                await turn.next_word()
        while True:
            if is_up():
                await self.tell_noted()
            await asyncio.sleep(_AGAIN_S)

    async def tell_noted(self) -> None:
        """Tell what is noted, by this run, another worker, or an earlier run."""
        for path in self._notes.paths():
            try:
                await self._tell_note(path)
            except (ConditionFailed, StoreError) as error:
                _logger.debug("%s is told to the shared store later: %s", path, error)
            except BucketDown:
                return

    # For whoever decides.

    async def learn(self, repository: Repository, digest: Digest | None) -> bool:
        """Bring into the book what other replicas know; whether the bucket has said anything, now or a moment ago."""
        try:
            await self._repositories.ask(repository, lambda: self._learn_openness(repository))
            if digest is not None:
                await self._contents.ask((repository, digest), lambda: self._learn_holder(repository, digest))
        except BucketDown:
            return False
        return True

    async def adopt_holders(self, digest: Digest) -> list[Holder]:
        """Bring into the book, and return, who has a content that has come by way of the bucket. Raises StoreError."""
        try:
            paths = await self._records.below(holders_prefix(digest))
            found = await asyncio.gather(*map(self._read_holder, paths))
        except BucketDown:
            return []
        holders = [(record, is_deleted) for record, is_deleted in found if record is not None]
        for record, is_deleted in holders:
            await self._store.access.known(record.repository, NOBODY, digest)
            self._bind(record, digest, is_deleted=is_deleted)
        return [record.holder for record, _ in holders]

    async def is_held(self, digest: Digest) -> bool:
        """Whether it is known where a content has come from. Raises StoreError."""
        return bool(await self._store.access.bindings(digest) or await self.adopt_holders(digest))

    async def challenge(self, registry: Registry) -> str | None:
        """Return what a registry asked another replica for."""
        try:
            return await self._challenges.ask(registry, lambda: self._read_challenge(registry))
        except BucketDown:
            return None

    # For the book, when it learns something (`store.access_book.Watcher`).

    def answered(self, repository: Repository, opened_by: OpenedBy, *, let_in: bool, at_s: float) -> None:
        """Tell the others whom a registry let in, or refused."""
        answer = SharedOpenness.of_answer(opened_by, let_in=let_in, at_s=at_s)
        own = self._own.get(repository, SharedOpenness()).merged(answer)
        _keep(self._own, repository, own)
        path = repository_path(repository)
        if not let_in and answer != SharedOpenness():
            own = own.merged(self._noted(repository))
            self._notes.keep(path, RepositoryRecord(repository, own).to_json())
        self._errands.add(path, lambda: self._write_openness(repository))

    def bound(self, repository: Repository, digest: Digest, given: int) -> None:
        """Tell the others which repository has a content."""
        path = holder_path(digest, repository)
        self._notes.remove(path)
        if self._told.get((repository, digest)) != given:
            self._errands.add(path, lambda: self._write_given(repository, digest))

    def unbound(self, repository: Repository, digest: Digest) -> None:
        """Tell the others that a repository has a content no more: their clients have to ask the registry again."""
        path, text = holder_path(digest, repository), HolderRecord(repository, Given.NOWHERE).to_json()
        _keep(self._told, (repository, digest), Given.NOWHERE)
        self._notes.keep(path, text)
        self._errands.add(path, lambda: self._write_unbound(path, text))

    def challenged(self, registry: Registry, challenge: str) -> None:
        """Tell the others what a registry asks for."""

        async def write() -> None:
            await self._records.write(challenge_path(registry), challenge)

        self._errands.add(challenge_path(registry), write)

    def forget(self, digest: Digest) -> None:
        """Tell again who has a content, when it is written again: what was told is gone from the bucket."""
        for key in [key for key in self._told if key[1] == digest and self._told[key] != Given.NOWHERE]:
            del self._told[key]

    async def write_holders(self, digest: Digest) -> None:
        """Write who has a content and who may read there, all that is known here. Raises BucketDown, StoreError."""
        for repository in await self._store.access.bindings(digest):
            await self.tell(repository, digest)

    async def tell(self, repository: Repository, digest: Digest) -> None:
        """Write now what is known here of a repository and a content. Raises BucketDown, StoreError."""
        await self._write_openness(repository)
        await self._write_given(repository, digest)

    async def _read_challenge(self, registry: Registry) -> str | None:
        found = await self._records.read(challenge_path(registry), str)
        return None if found is None else found.record

    async def _learn_openness(self, repository: Repository) -> None:
        # Before the bucket is asked, which may be told meanwhile; and again, for what is learnt meanwhile.
        noted = self._noted(repository)
        found = await self._records.read(repository_path(repository), RepositoryRecord.from_json)
        if found is None or found.record is None or found.record.repository != repository:
            return
        own = self._own.get(repository, SharedOpenness()).merged(noted).merged(self._noted(repository))
        openness = found.record.openness.merged(own)
        now_s = time.time()
        self._store.access.adopt(repository, lambda own: openness.correct(own, now_s))

    async def _learn_holder(self, repository: Repository, digest: Digest) -> None:
        record, is_deleted = await self._read_holder(holder_path(digest, repository))
        if record is not None and record.repository == repository:
            self._bind(record, digest, is_deleted=is_deleted)

    async def _read_holder(self, path: str) -> tuple[HolderRecord | None, bool]:
        """Return the bucket's word, and whether a delete was noted before: the bucket may be told of it meanwhile."""
        is_deleted = self._notes.text(path) is not None
        found = await self._records.read(path, HolderRecord.from_json)
        return None if found is None else found.record, is_deleted

    def _bind(self, record: HolderRecord, digest: Digest, *, is_deleted: bool) -> None:
        """Bring a holder into the book, but not what this replica has seen deleted."""
        key, path = (record.repository, digest), holder_path(digest, record.repository)
        is_deleted |= self._told.get(key) == Given.NOWHERE or self._notes.text(path) is not None
        if record.given != Given.NOWHERE and not is_deleted:
            _keep(self._told, key, record.given)
            self._store.access.bind(*key, record.given)

    async def _write_openness(self, repository: Repository) -> None:
        path = repository_path(repository)
        known = await self._store.access.known(repository, NOBODY, None)
        note = self._notes.text(path)
        # What was refused and told is known here since the start only; before it, what is known to be open.
        own = (self._own.get(repository) or SharedOpenness.of_known(known.openness)).merged(self._noted(repository))
        for _ in range(_TRIES):
            found = await self._records.read(path, RepositoryRecord.from_json)
            stored = found.record.openness if found is not None and found.record is not None else SharedOpenness()
            if own.adds_to(stored, self._worth_s):
                try:
                    await self._records.replace(path, RepositoryRecord(repository, own.merged(stored)).to_json(), found)
                except ConditionFailed:
                    continue
            if note is not None:
                self._notes.remove(path, note)
            return

    def _noted(self, repository: Repository) -> SharedOpenness:
        """Return what the bucket has not heard yet of a repository."""
        text = self._notes.text(repository_path(repository))
        with contextlib.suppress(ValueError):
            return SharedOpenness() if text is None else RepositoryRecord.from_json(text).openness
        return SharedOpenness()

    async def _tell_note(self, path: str) -> None:
        """Write what is noted of one record; what cannot be read is forgotten. Raises BucketDown, StoreError."""
        text = self._notes.text(path)
        if text is None:
            return
        try:
            record = RepositoryRecord.from_json(text) if is_repository(path) else HolderRecord.from_json(text)
        except ValueError:
            self._notes.remove(path, text)
            return
        if isinstance(record, RepositoryRecord):
            await self._write_openness(record.repository)
        else:
            await self._write_unbound(path, text)

    async def _write_unbound(self, path: str, text: str) -> None:
        await self._records.write(path, text)
        self._notes.remove(path, text)

    async def _write_given(self, repository: Repository, digest: Digest) -> None:
        """Write what is known now: another worker may have passed on a delete."""
        given = (await self._store.access.bindings(digest)).get(repository, Given.NOWHERE)
        if self._told.get((repository, digest)) == given or given == Given.NOWHERE:
            return
        await self._records.write(holder_path(digest, repository), HolderRecord(repository, given).to_json())
        _keep(self._told, (repository, digest), given)


def _keep[Key: Hashable, Value](known: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MOST:
        known.popitem(last=False)
