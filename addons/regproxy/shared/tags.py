"""Tag records that replicas share, and the turn to revalidate one.

Whoever finds a tag stale by its own record looks into the bucket. A record there that is fresh is as good as an own
answer. Else the replica writes a lease into it, on the condition that nobody else has written since: who succeeds asks
the registry, the others wait for what it writes. A replica that has to wait too long, and any whose bucket does not
answer, asks the registry itself.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Repository
from regproxy.policy.shared_records import LEASE_S, SKEW_S, Lease, Turn, known_at_s, turn
from regproxy.shared.bucket import ConditionFailed
from regproxy.shared.errands import Errands
from regproxy.shared.link import BucketDown
from regproxy.shared.paths import tag_path, tag_prefix
from regproxy.shared.records import TagState
from regproxy.shared.sealed import RECORD_LIMIT_S, Found, SealedRecords
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.records import TagKey, TagRecord

WAIT_LIMIT_S = 5.0
"""How long a client waits for another replica's answer."""

FORGET_LIMIT_S = 2.0
"""How long a client that pushed a tag waits for the others to be told."""

_LOOK_AGAIN_S = 0.1
_TAKES = 3
"""Somebody else was quicker so often: it is the engine that takes no conditional write."""

_MOST_FORGOTTEN = 10_000
_NEVER_S = float("-inf")
"""Before anything: what was imported counts as checked at 0."""

WORTH_S = 60.0
"""A check that changed nothing is told once in so long, if nobody may rely on its time."""


@dataclass(slots=True, weakref_slot=True)
class CheckTurn:
    """One revalidation: what another replica has found out in the meantime, or the lease for an own one."""

    record: TagRecord | None
    """The newest that is known."""
    is_fresh: bool = False
    """Whether that needs no new check."""
    answer: TagRecord | None = None
    """The own one, as soon as there is one."""
    _lease: Found[TagState] | None = field(default=None)

    @property
    def is_leased(self) -> bool:
        """Whether others wait for the answer."""
        return self._lease is not None


class SharedTags:
    """The records of tags. Without the bucket there is nothing to tell, and every turn is one's own."""

    def __init__(
        self,
        store: Store,
        records: SealedRecords,
        errands: Errands,
        before_telling: Callable[[Repository, Digest], Awaitable[None]],
    ) -> None:
        self._store, self._records, self._errands = store, records, errands
        self._before_telling = before_telling
        self._holder = secrets.token_hex(8)
        self._turns: dict[TagKey, CheckTurn] = {}
        # Weak: an errand that is dropped, or done, lets go of its turn.
        self._leased: WeakValueDictionary[TagKey, CheckTurn] = WeakValueDictionary()
        self._forgotten_at_s: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self.on_forgotten: Callable[[str, str, str, float], None] = lambda _registry, _name, _tag, _at_s: None
        """Called with a tag that is forgotten, and when (Unix time)."""

    async def newer(self, key: TagKey, own: TagRecord | None) -> TagRecord | None:
        """Return another replica's record if it is newer than the own one, else that."""
        try:
            _, state = await self._read(key)
        except BucketDown:
            return own
        return await self._adopted(key, own, state.record)

    async def all_of(self, registry: str, name: str, tag: str) -> list[TagRecord]:
        """Return what a tag means to all kinds of clients, the newest first."""
        try:
            paths = await self._records.below(tag_prefix(registry, name, tag))
            found = await asyncio.gather(*(self._records.read(path, TagState.from_json) for path in paths))
        except BucketDown:
            return []
        states = [each.record for each in found if each is not None and each.record is not None]
        forgotten_at_s = self._forgotten_at_s.get((registry, name, tag), _NEVER_S) + SKEW_S
        records = [each.record for each in states if each.record and each.record.checked_at_s > forgotten_at_s]
        return sorted(records, key=lambda record: record.checked_at_s, reverse=True)

    @asynccontextmanager
    async def turn(self, key: TagKey, own: TagRecord | None, lifetime_s: float) -> AsyncIterator[CheckTurn]:
        """Wait for another replica's answer or the right to ask for one."""
        mine = await self._wait_for_turn(key, own, lifetime_s)
        if not mine.is_leased:
            yield mine
            return
        self._turns[key] = self._leased[key] = mine
        try:
            yield mine
        finally:
            if self._turns.get(key) is mine:
                del self._turns[key]
            self._errands.add(f"{tag_path(key)} end", lambda: self._end(key, mine))

    def remember(self, key: TagKey, record: TagRecord) -> None:
        """Tell the others what a tag means."""
        running = self._turns.get(key)
        if running is not None:
            running.answer = record
        else:
            self._errands.add(tag_path(key), lambda: self._write(key, record))

    async def forget(self, registry: str, name: str, tag: str) -> bool:
        """Forget a tag, for all kinds of clients: it was pushed, deleted, or is gone.

        Whether the others know; if not, they are told as soon as the bucket answers.
        """
        at_s = time.time()
        self.hear_forgotten((registry, name, tag), at_s)
        self.on_forgotten(registry, name, tag, at_s)
        prefix = tag_prefix(registry, name, tag)
        try:
            await self._remove_below(prefix)
        except BucketDown:
            self._errands.add(f"{prefix} forget", lambda: self._remove_below(prefix))
            return False
        return True

    def hear_forgotten(self, tag: tuple[str, ...], at_s: float) -> None:
        """Believe no record of a tag for which a registry was asked before this Unix time, by any replica's clock."""
        self._errands.drop(tag_prefix(*tag))
        self._forgotten_at_s[tag] = at_s
        self._forgotten_at_s.move_to_end(tag)
        if len(self._forgotten_at_s) > _MOST_FORGOTTEN:
            self._forgotten_at_s.popitem(last=False)

    async def _wait_for_turn(self, key: TagKey, own: TagRecord | None, lifetime_s: float) -> CheckTurn:
        give_up_s, newest, takes = time.monotonic() + WAIT_LIMIT_S, own, 0
        with suppress(BucketDown, TimeoutError):
            while time.monotonic() < give_up_s and takes < _TAKES:
                found, state = await self._read(key)
                checked_at_s = None if state.record is None else state.record.checked_at_s
                newest = await self._adopted(key, newest, state.record)
                unused = None if key in self._leased else self._holder
                match turn(checked_at_s, state.lease, lifetime_s, time.time(), unused=unused):
                    case Turn.USE:
                        return CheckTurn(newest, is_fresh=True)
                    case Turn.WAIT:
                        pass
                    case Turn.TAKE:
                        takes += 1
                        with suppress(ConditionFailed):
                            async with asyncio.timeout(RECORD_LIMIT_S):
                                return CheckTurn(newest, _lease=await self._take(key, state, found))
                await asyncio.sleep(_LOOK_AGAIN_S)
        return CheckTurn(newest)

    async def _take(self, key: TagKey, state: TagState, found: Found[TagState] | None) -> Found[TagState]:
        leased = replace(state, lease=Lease(self._holder, time.time() + LEASE_S))
        return Found(leased, await self._records.replace(tag_path(key), leased.to_json(), found))

    async def _end(self, key: TagKey, mine: CheckTurn) -> None:
        """Write the answer, or that nobody asks any more."""
        lease = mine._lease  # noqa: SLF001 - a turn is this class's own
        assert lease is not None
        assert lease.record is not None
        if mine.answer is not None:
            repository = Repository(Registry.parse(key.registry), key.name)
            # Who waits for the answer is to find there what it needs to use it.
            await self._before_telling(repository, mine.answer.descriptor.digest)
        after = TagState(mine.answer or lease.record.record)
        await self._records.replace(tag_path(key), after.to_json(), lease)

    async def _write(self, key: TagKey, record: TagRecord) -> None:
        found, state = await self._read(key)
        stored = state.record
        is_new = stored is None or stored.descriptor != record.descriptor
        if stored is not None and record.checked_at_s - stored.checked_at_s < (0 if is_new else WORTH_S):
            return
        await self._records.replace(tag_path(key), TagState(record).to_json(), found)

    async def _remove_below(self, prefix: str) -> None:
        try:
            async with asyncio.timeout(FORGET_LIMIT_S):
                await self._records.remove_below(prefix)
        except TimeoutError as error:
            raise BucketDown from error

    async def _read(self, key: TagKey) -> tuple[Found[TagState] | None, TagState]:
        """Return what is there, and what counts of it: not what is older than a push through this proxy."""
        found = await self._records.read(tag_path(key), TagState.from_json)
        state = found.record if found is not None and found.record is not None else TagState(None)
        forgotten_at_s = self._forgotten_at_s.get((key.registry, key.name, key.tag), _NEVER_S) + SKEW_S
        if state.record is not None and state.record.checked_at_s <= forgotten_at_s:
            state = TagState(None)
        return found, state

    async def _adopted(self, key: TagKey, own: TagRecord | None, shared: TagRecord | None) -> TagRecord | None:
        """Return the newer of the own and the shared record, which is kept if it is that one."""
        if shared is None:
            return own
        shared = replace(shared, checked_at_s=known_at_s(shared.checked_at_s, time.time()))
        if own is not None and own.checked_at_s >= shared.checked_at_s:
            return own
        with suppress(StoreError):  # it is there for this pull all the same
            await self._store.put_tag_record(key, shared)
        return shared
