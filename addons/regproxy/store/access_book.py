"""What is known of who may read what: in memory what is in use, in the index all of it.

A warm read asks `recall`, which waits for nothing and knows only what is in memory: too little is a reason to ask
again, never to serve. What is learnt is written in batches, a refusal at once. Bounded, least recently used first.
For the event loop.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import CLOSED, NEVER_S, Given, Holder, Known, Openness, Repository, set_back
from regproxy.policy.identities import Identity
from regproxy.policy.openers import OpenedBy
from regproxy.store.access_table import AccessChanges
from regproxy.store.ledger import Ledger

REPOSITORIES = 20_000
BINDINGS = 100_000
"""About 300 bytes each: the contents of some thousands of images."""

PROOFS = 50_000

NOTHING = Known()


class Recent[Key: Hashable, Value](OrderedDict[Key, Value]):
    """The entries that were used last."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def recall(self, key: Key) -> Value | None:
        """Return an entry, which is used now."""
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value

    def known(self, key: Key, otherwise: Value) -> Value:
        """Return an entry, or the other value."""
        return self.get(key, otherwise)

    def keep(self, key: Key, value: Value) -> None:
        """Add or replace an entry."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)


class Watcher(Protocol):
    """Hears what is learnt, to tell other replicas. It must not wait."""

    def answered(self, repository: Repository, opened_by: OpenedBy, *, let_in: bool, at_s: float) -> None:
        """Hear that a registry let somebody read, or refused."""

    def bound(self, repository: Repository, digest: Digest, given: int) -> None:
        """Hear that a repository has a content."""

    def unbound(self, repository: Repository, digest: Digest) -> None:
        """Hear that a repository has a content no more."""

    def challenged(self, registry: Registry, challenge: str) -> None:
        """Hear that a registry asks for something else than before."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A content on its way; a registry that breaks its word has given nothing."""

    repository: Repository
    digest: Digest


@dataclass(frozen=True, slots=True)
class Opened:
    """To whom a registry gives what is on its way."""

    given: int
    client: Identity


class AccessBook:
    """The records of one open store."""

    def __init__(self, ledger: Ledger) -> None:
        self.watcher: Watcher | None = None
        self._ledger = ledger
        self._openness: Recent[Repository, Openness] = Recent(REPOSITORIES)
        self._given: Recent[tuple[Repository, Digest], int] = Recent(BINDINGS)
        self._proofs: Recent[tuple[Repository, str], float] = Recent(PROOFS)
        self._challenges: Recent[Registry, str] = Recent(REPOSITORIES)
        self._arriving: dict[Arrival, Opened] = {}
        self._changes = AccessChanges()
        self._writing = AccessChanges()
        self._clock_sets = 0

    def recall(self, repository: Repository, client: Identity, digest: Digest | None) -> Known:
        """Return what memory knows, which may be too little; no digest is for what no content is needed for."""
        given: int = Given.TO_CLIENT if digest is None else self._given_or_arriving(repository, digest)
        if not given:
            return NOTHING
        openness = self._openness.recall(repository) or CLOSED
        proven_at_s = NEVER_S if client.is_nobody else self._proofs.recall((repository, client.key)) or NEVER_S
        return Known(openness, proven_at_s, given)

    async def known(self, repository: Repository, client: Identity, digest: Digest | None) -> Known:
        """Return all that is known. Raises StoreError."""
        await self._load(repository, client, digest)
        return self.recall(repository, client, digest)

    async def bindings(self, digest: Digest) -> dict[Repository, int]:
        """Return the repositories that have given a content, and to whom. Raises StoreError."""
        found = dict(await self._ledger.holders(digest))
        for changes in (self._writing, self._changes):
            for (repository, changed), given in changes.bindings.items():
                if changed == digest:
                    found[repository] = given
        return found

    async def holders(self, digest: Digest) -> list[Holder]:
        """Return who is known to have a content. Raises StoreError."""
        found = await self.bindings(digest)
        for arrival, opened in self._arriving.items():
            if arrival.digest == digest:
                found.setdefault(arrival.repository, opened.given)
        return [Holder(repository.registry, given) for repository, given in found.items()]

    def arrives_for(self, repository: Repository, client: Identity, digest: Digest) -> bool:
        """Whether what is on its way was given to everybody, to the operator, or to this very client's login."""
        opened = self._arriving.get(Arrival(repository, digest))
        if opened is None:
            return False
        return opened.given != Given.TO_CLIENT or (opened.client == client and not client.is_nobody)

    async def challenge(self, registry: Registry) -> str | None:
        """Return what a registry asked for when it last refused. Raises StoreError."""
        known = self._challenges.recall(registry)
        if known is None:
            known = await self._ledger.challenge(registry)
            if known is not None:
                self._challenges.keep(registry, known)
        return known

    def answered(
        self, repository: Repository, opened_by: OpenedBy, client: Identity, *, let_in: bool, now_s: float
    ) -> None:
        """Note that the registry let somebody read, or refused; after `known`: what memory lacks is taken as none."""
        if opened_by is not OpenedBy.CLIENT:
            before = self._openness.known(repository, CLOSED)
            openness = before.after(opened_by, let_in=let_in, now_s=now_s)
            self._openness.keep(repository, openness)
            self._changes.repositories[repository] = openness
        elif not client.is_nobody:
            at_s = now_s if let_in else NEVER_S
            self._proofs.keep((repository, client.key), at_s)
            self._changes.proofs[repository, client.key] = at_s
        if self.watcher is not None:
            self.watcher.answered(repository, opened_by, let_in=let_in, at_s=now_s)

    def adopt(self, repository: Repository, change: Callable[[Openness], Openness]) -> None:
        """Correct how open a repository is by what others have learnt; after `known`."""
        before = self._openness.get(repository, CLOSED)
        openness = change(before)
        if openness != before:
            self._openness.keep(repository, openness)
            self._changes.repositories[repository] = openness

    def challenged(self, registry: Registry, challenge: str) -> None:
        """Note what a registry asks for."""
        if self._challenges.get(registry) != challenge:
            self._challenges.keep(registry, challenge)
            self._changes.challenges[registry] = challenge
            if self.watcher is not None:
                self.watcher.challenged(registry, challenge)

    def bind(self, repository: Repository, digest: Digest, given: int) -> None:
        """Note that a repository has a content, and to whom it gave it; after `known`."""
        key = repository, digest
        all_given = self._given.known(key, Given.NOWHERE) | given
        self._given.keep(key, all_given)
        self._changes.bindings[key] = all_given
        if self.watcher is not None:
            self.watcher.bound(repository, digest, all_given)

    def unbind(self, repository: Repository, digest: Digest) -> None:
        """Note that a repository has a content no more. It stays among the holders: its origin is not unknown."""
        self._given.keep((repository, digest), Given.NOWHERE)
        self._changes.bindings[repository, digest] = Given.NOWHERE
        if self.watcher is not None:
            self.watcher.unbound(repository, digest)

    @contextmanager
    def arriving(self) -> Iterator["Arriving"]:
        """Give what notes where a content comes from while it comes; what is not kept is forgotten."""
        arriving = Arriving(self, self._arriving)
        try:
            yield arriving
        finally:
            arriving.end()

    def clock_set_back(self, by_s: float) -> None:
        """Keep all ages when the clock was set back by so many seconds: what is in the index, the ledger moves."""
        self._clock_sets += 1
        for key, openness in self._openness.items():
            self._openness[key] = openness.set_back(by_s)
        for proof, at_s in self._proofs.items():
            self._proofs[proof] = set_back(at_s, by_s)
        # New ones, as the index thread may be writing these.
        self._changes, self._writing = self._changes.set_back(by_s), self._writing.set_back(by_s)

    async def flush(self) -> None:
        """Write what was learnt. Raises StoreError: it is tried again with the next."""
        if not self._changes or self._writing:
            return
        self._writing, self._changes = self._changes, AccessChanges()
        try:
            await self._ledger.write_access(self._writing)
        except BaseException:
            self._changes = _merged(self._writing, self._changes)
            raise
        finally:
            self._writing = AccessChanges()

    def close(self) -> None:
        """Write what was learnt. Blocks; raises StoreError."""
        if changes := _merged(self._writing, self._changes):
            self._ledger.write_access_now(changes)

    def _given_or_arriving(self, repository: Repository, digest: Digest) -> int:
        given = self._given.recall((repository, digest))
        if given:
            return given
        opened = self._arriving.get(Arrival(repository, digest))
        return 0 if opened is None else opened.given

    async def _load(self, repository: Repository, client: Identity, digest: Digest | None) -> None:
        """Bring into memory what is not there; what was learnt meanwhile is newer."""
        wants_proof = not client.is_nobody and (repository, client.key) not in self._proofs
        wants_content = digest is not None and (repository, digest) not in self._given
        if repository in self._openness and not wants_content and not wants_proof:
            return
        clock_sets = -1
        while clock_sets != self._clock_sets:
            clock_sets = self._clock_sets
            openness, given, proven_at_s = await self._ledger.access(repository, client.key, digest)
        for changes in (self._writing, self._changes):
            openness = changes.repositories.get(repository, openness)
            given = given if digest is None else changes.bindings.get((repository, digest), given)
            proven_at_s = changes.proofs.get((repository, client.key), proven_at_s)
        if repository not in self._openness:
            self._openness.keep(repository, openness)
        if digest is not None and (repository, digest) not in self._given:
            self._given.keep((repository, digest), given)
        if wants_proof and (repository, client.key) not in self._proofs:
            self._proofs.keep((repository, client.key), proven_at_s)


class Arriving:
    """One content on its way from one repository."""

    def __init__(self, book: AccessBook, all_arriving: dict[Arrival, Opened]) -> None:
        self._book = book
        self._all = all_arriving
        self._arrival: Arrival | None = None
        self._given = Given.NOWHERE

    def begin(self, repository: Repository, digest: Digest, given: Given, client: Identity) -> None:
        """Note that the registry began to send it."""
        self._arrival, self._given = Arrival(repository, digest), given
        self._all[self._arrival] = Opened(given, client)

    def arrived(self) -> None:
        """Note that it is all there and right."""
        if self._arrival is not None:
            self._book.bind(self._arrival.repository, self._arrival.digest, self._given)

    def end(self) -> None:
        """Forget it, if it did not arrive."""
        if self._arrival is not None:
            self._all.pop(self._arrival, None)


def _merged(older: AccessChanges, newer: AccessChanges) -> AccessChanges:
    return AccessChanges(
        older.repositories | newer.repositories,
        older.bindings | newer.bindings,
        older.proofs | newer.proofs,
        older.challenges | newer.challenges,
    )
