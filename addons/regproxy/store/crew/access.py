"""Who may read what, as one worker among several knows it.

What it learns is written at once, and what others have learnt is read. What lets somebody read is kept with the stamp
of its repository. When another worker learns of a refusal, or passes on that a content is deleted, that changes before
the client gets its answer; from then on the rights of that repository are read from the index again. What another
worker learns that lets somebody read is found where memory is not enough, before a registry is asked.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Any

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Openness, Repository
from regproxy.policy.identities import Identity
from regproxy.policy.openers import OpenedBy
from regproxy.store.access_book import BINDINGS, PROOFS, REPOSITORIES, AccessBook, Arrival, Opened, Recent
from regproxy.store.access_table import AccessChanges
from regproxy.store.crew.ledger import LearntChanges, repository_parts, without_rights
from regproxy.store.crew.stamps import Stamps
from regproxy.store.errors import StoreError
from regproxy.store.ledger import Ledger

_logger = logging.getLogger(__name__)


class _Stamped[Key: Hashable, Value](Recent[Key, Value]):
    """Recent entries that count as long as the stamp of their repository does."""

    def __init__(self, most: int, stamps: Stamps, repository_of: Callable[[Key], Repository]) -> None:
        super().__init__(most)
        self._stamps, self._repository_of = stamps, repository_of
        self._marks: dict[Key, tuple[int, int]] = {}

    def counts(self, key: Key) -> bool:
        mark = self._marks.get(key)
        return mark is not None and self._stamps.current(mark[0]) == mark[1]

    def recall(self, key: Key) -> Value | None:
        return super().recall(key) if self.counts(key) else None

    def known(self, key: Key, otherwise: Value) -> Value:
        return super().known(key, otherwise) if self.counts(key) else otherwise

    def keep(self, key: Key, value: Value) -> None:
        number = self._stamps.number(*repository_parts(self._repository_of(key)))
        self.keep_as_of(key, value, number, self._stamps.current(number))

    def keep_as_of(self, key: Key, value: Value, number: int, stamp: int) -> None:
        self._marks[key] = number, stamp
        super().keep(key, value)

    def popitem(self, last: bool = True) -> tuple[Key, Value]:
        entry = super().popitem(last)
        self._marks.pop(entry[0], None)
        return entry


class CrewAccessBook(AccessBook):
    """The records of one worker's open store."""

    def __init__(self, ledger: Ledger, stamps: Stamps) -> None:
        super().__init__(ledger)
        self._stamps = stamps
        self._rights: _Stamped[Repository, Openness] = _Stamped(REPOSITORIES, stamps, lambda key: key)
        self._openness = self._rights
        self._bound: _Stamped[tuple[Repository, Digest], int] = _Stamped(BINDINGS, stamps, lambda key: key[0])
        self._given = self._bound
        self._own: _Stamped[tuple[Repository, str], float] = _Stamped(PROOFS, stamps, lambda key: key[0])
        self._proofs = self._own
        self._writing = LearntChanges()
        self._learnt_at: dict[Repository, int] = {}
        self._refused: set[Repository] = set()
        self._flushing = asyncio.Lock()
        self._flush: asyncio.Task[None] | None = None
        self._heard: dict[Digest, list[Arrival]] = {}
        self._told: dict[Digest, list[list[Any]]] = {}

    def answered(
        self, repository: Repository, opened_by: OpenedBy, client: Identity, *, let_in: bool, now_s: float
    ) -> None:
        """Note that the registry let somebody read, or refused."""
        self._learn(repository)
        super().answered(repository, opened_by, client, let_in=let_in, now_s=now_s)
        if not let_in:
            self._refused.add(repository)

    def adopt(self, repository: Repository, change: Callable[[Openness], Openness]) -> None:
        """Correct how open a repository is, unless another worker has learnt of a refusal since `known`."""
        if self._rights.counts(repository):
            self._learn(repository)
            super().adopt(repository, change)

    def bind(self, repository: Repository, digest: Digest, given: int) -> None:
        """Note that a repository has a content, and to whom it gave it."""
        self._learn(repository)
        super().bind(repository, digest, given)

    def unbind(self, repository: Repository, digest: Digest) -> None:
        """Note that a repository has a content no more; for the other workers that is as a refusal."""
        super().unbind(repository, digest)
        self._refused.add(repository)

    def challenged(self, registry: Registry, challenge: str) -> None:
        """Note what a registry asks for."""
        super().challenged(registry, challenge)
        self._flush_soon()

    async def flush(self) -> None:
        """Write what was learnt; nothing of it waits when this returns. Raises StoreError."""
        async with self._flushing:
            while learnt := self._take():
                self._writing = learnt
                try:
                    await self._ledger.write_access(learnt)
                except BaseException:
                    self._give_back(learnt)
                    raise
                finally:
                    self._writing = LearntChanges()

    def close(self) -> None:
        """Write what was learnt. Blocks; raises StoreError."""
        assert isinstance(self._writing, LearntChanges)
        self._give_back(self._writing)
        if learnt := self._take():
            self._ledger.write_access_now(learnt)

    # What is on its way to another worker.

    def arrivals(self, digest: Digest) -> list[list[object]]:
        """Return for whom a content is on its way, as JSON has it."""
        return [
            [str(arrival.repository.registry), arrival.repository.name, int(opened.given), opened.client.key]
            for arrival, opened in self._arriving.items()
            if arrival.digest == digest
        ]

    def hear_arrivals(self, digest: Digest, told: list[list[Any]]) -> None:
        """Take note of what is on its way to another worker; with nothing told it is over."""
        if told == self._told.get(digest, []):
            return
        self._told[digest] = told
        for arrival in self._heard.pop(digest, []):
            self._arriving.pop(arrival, None)
        if not told:
            del self._told[digest]
        for registry, name, given, client in told:
            arrival = Arrival(Repository(Registry.parse(registry), name), digest)
            self._arriving[arrival] = Opened(given, Identity(client))
            self._heard.setdefault(digest, []).append(arrival)

    def _learn(self, repository: Repository) -> None:
        number = self._stamps.number(*repository_parts(repository))
        self._learnt_at.setdefault(repository, self._stamps.current(number))
        self._flush_soon()

    def _unwritten(self) -> LearntChanges:
        new = self._changes
        return LearntChanges(new.repositories, new.bindings, new.proofs, new.challenges, self._learnt_at, self._refused)

    def _take(self) -> LearntChanges:
        learnt = self._unwritten()
        self._changes, self._learnt_at, self._refused = AccessChanges(), {}, set()
        return learnt

    def _give_back(self, learnt: LearntChanges) -> None:
        newer = self._changes
        self._changes = AccessChanges(
            learnt.repositories | newer.repositories,
            learnt.bindings | newer.bindings,
            learnt.proofs | newer.proofs,
            learnt.challenges | newer.challenges,
        )
        self._learnt_at = self._learnt_at | learnt.learnt_at
        self._refused |= learnt.refused

    def _flush_soon(self) -> None:
        if self._flush is None or self._flush.done():
            self._flush = asyncio.get_running_loop().create_task(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        await asyncio.sleep(0)  # what is learnt together is written together
        try:
            await self.flush()
        except StoreError as error:
            _logger.debug("what was learnt of who may read is written later: %s", error)

    async def _load(self, repository: Repository, client: Identity, digest: Digest | None) -> None:
        """Read what the index knows, for another worker may have written it; what was learnt here is newer."""
        number = self._stamps.number(*repository_parts(repository))
        stamp = self._stamps.current(number)
        openness, given, proven_at_s = await self._ledger.access(repository, client.key, digest)
        for learnt in (self._writing, self._unwritten()):
            assert isinstance(learnt, LearntChanges)
            is_overtaken = learnt.learnt_at.get(repository, stamp) != stamp
            changes = without_rights(learnt, {repository}) if is_overtaken else learnt
            openness = changes.repositories.get(repository, openness)
            proven_at_s = changes.proofs.get((repository, client.key), proven_at_s)
            given = given if digest is None else changes.bindings.get((repository, digest), given)
        self._rights.keep_as_of(repository, openness, number, stamp)
        if digest is not None:
            self._bound.keep_as_of((repository, digest), given, number, stamp)
        if not client.is_nobody:
            self._own.keep_as_of((repository, client.key), proven_at_s, number, stamp)
