"""When a manifest comes from the store and when from the registry.

By digest: stored content is served if its media type is one the client accepts. By tag, in this order: a fresh record
is served; a stale one is revalidated by HEAD, which costs nothing of Docker Hub's quota, and a GET follows only when
the tag has moved; when the registry fails to answer, the last good answer is served and said to be stale. 401, 403
and 404 are answers, not failures (`policy.freshness`).
"""

import dataclasses
import time
from collections.abc import Iterable
from contextlib import nullcontext

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.media_types import is_accepted
from regproxy.origin.errors import Answer, AnswerTooLarge, AnswerUnusable, UpstreamUnavailable
from regproxy.origin.meter import WRONG_DIGEST
from regproxy.origin.patience import within
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.single_flight import SingleFlight
from regproxy.policy.breaker import Need
from regproxy.policy.freshness import Status, TimedOut, UpstreamFailure, is_fresh, stale_allowed
from regproxy.policy.identities import Identity
from regproxy.stack.access import Allowed, FromRegistry, Refused
from regproxy.stack.access_questions import Wish
from regproxy.stack.answers import content_fields, described_by_us
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus
from regproxy.stack.manifest_answers import (
    Pull,
    Served,
    Unobtainable,
    Wanted,
    Withheld,
    counts,
    described,
    keep_low_quota,
    of_content,
    of_record,
    of_tag,
    relayed,
    source_of,
    verified,
)
from regproxy.stack.shared_manifests import SharedManifests
from regproxy.stack.tag_changes import TagChanges
from regproxy.store.errors import StoreError
from regproxy.store.hot import StoredManifest
from regproxy.store.records import TagKey, TagRecord

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
"""The distribution-spec asks registries to take manifests of 4 MiB ("Pushing Manifests"); containerd reads no larger
ones.
"""

REVALIDATION_LIMIT_S = 5.0
"""How long a client that could be served a stale answer waits for a fresh one; a connection has to come about in
`patience.CONNECT_BUDGET_S` of them.
"""


class ManifestSource:
    """Serves manifests from the store and the registry."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changes = TagChanges(core)
        self._shared = SharedManifests(core)
        self._flights: SingleFlight[tuple[UpstreamRequest, tuple[str, ...], Identity], Served] = SingleFlight()

    def serve_warm(self, wanted: Wanted) -> Served | None:
        """Return a fresh answer that is in memory, without waiting. Raises StoreError."""
        store, digest, access = self._core.store, wanted.manifest.reference, self._core.access
        if not isinstance(digest, Digest):
            record = store.recall_tag(wanted.tag_key)
            if record is None or not is_fresh(record.checked_at_s, wanted.lifetime_s, time.time()):
                return None
            if not access.allows(wanted.reader, None if wanted.head else record.descriptor.digest):
                return None
            if wanted.head:
                return of_record(record, CacheStatus.HIT)
            return of_tag(record, store.recall_manifest(record.descriptor.digest), CacheStatus.HIT)
        if not access.allows(wanted.reader, digest):
            return None
        return of_content(wanted, digest, store.recall_manifest(digest), CacheStatus.HIT)

    async def serve(self, pull: Pull) -> Served:
        """Return the answer. Raises `Unobtainable`, `Withheld`."""
        if isinstance(pull.manifest.reference, Digest):
            return await self._stored(pull, pull.manifest.reference) or await self._asked(pull, None)
        record = await self._record(pull.tag_key)
        if record is None or not is_fresh(record.checked_at_s, pull.lifetime_s, time.time()):
            return await self._asked(pull, record)
        return await self._fresh(pull, record) or await self._asked(pull, record)

    async def _asked(self, pull: Pull, record: TagRecord | None) -> Served:
        """Ask the registry once for everyone who asks the same at the same time, unless it has just said 404."""
        if pull.insists:
            self._core.not_found.forget(pull.absent)
        # Without an authorization to send a client may still be somebody, who may have more in an outage.
        key = pull.request, pull.accepted, pull.reader.client
        return self._absent(pull) or await self._flights.run(key, lambda: self._ask_in_turn(pull, record))

    def _absent(self, pull: Pull) -> Served | None:
        known = self._core.not_found.find(pull.absent, head=pull.head)
        if known is None:
            return None
        reason = f"{pull.registry} answered 404 a moment ago"
        return dataclasses.replace(relayed(pull, known, CacheStatus.HIT), reason=reason)

    async def _ask_in_turn(self, pull: Pull, record: TagRecord | None) -> Served:
        """Ask unless another worker, or another replica, has just done so."""
        async with self._core.turns.turn(pull.question, REVALIDATION_LIMIT_S) as others_asked:
            served = await self._just_asked(pull, record) if others_asked else None
            return served or await self._shared.in_turn(pull, record, self._fresh, self._ask)

    async def _just_asked(self, pull: Pull, before: TagRecord | None) -> Served | None:
        """Return what another worker has learnt beyond a record; None when this client is to be asked for itself."""
        if isinstance(pull.manifest.reference, Digest):
            return await self._stored(pull, pull.manifest.reference)
        absent = self._absent(pull)
        record = None if absent else await self._record(pull.tag_key)
        if record is None or record == before:
            return absent
        return await self._fresh(pull, record)

    async def _fresh(self, pull: Pull, record: TagRecord) -> Served | None:
        """Serve what a fresh record points to, if the client may have it."""
        if not await self._core.access.may_read(pull.reader, None if pull.head else record.descriptor.digest):
            return None
        return await self._recorded(pull, record, CacheStatus.HIT)

    async def _ask(self, pull: Pull, record: TagRecord | None) -> Served:
        fallback = await self._last_good_here(pull, record)
        retry_at_s: float | None = None
        served: Served | None = None
        try:
            async with within(REVALIDATION_LIMIT_S, Need.OPTIONAL) if fallback is not None else nullcontext():
                served = await self._from_registry(pull, record, dispensable=fallback is not None and not pull.insists)
        except UpstreamUnavailable as error:
            reason, failure, retry_at_s = str(error), error.failure, error.retry_at_s
        except TimeoutError:
            reason, failure = f"{pull.registry} did not answer in {REVALIDATION_LIMIT_S:g} s", TimedOut()
        except AnswerTooLarge as error:
            raise Unobtainable(str(error), 502) from error
        else:
            reason, failure = f"{pull.registry} answered {served.status}", Status(served.status)
        known = await self._stale(pull, fallback, failure, reason) or served
        if known is not None:
            return known
        if record is not None and await self._is_withheld(pull, record):
            raise Withheld(await self._core.access.refusal(pull.reader, reason))
        raise Unobtainable.because(reason, failure, retry_at_s)

    async def _from_registry(self, pull: Pull, record: TagRecord | None, *, dispensable: bool) -> Served:
        """Revalidate a stale record by HEAD, or fetch."""
        if record is None:
            return await self._fetch(pull, CacheStatus.MISS)
        head_request, began_s = dataclasses.replace(pull.head_request, dispensable=dispensable), time.time()
        head = await self._core.upstream.ask(head_request, MANIFEST_LIMIT_BYTES)
        if stale_allowed(Status(head.status)):
            return relayed(pull, head, CacheStatus.EXPIRED)
        moved_to = described(head)
        await self._core.access.learn(pull.reader, head, counts=counts(pull, head))
        is_same = moved_to is not None and moved_to.digest == record.descriptor.digest
        if is_same and await self._core.access.believes(pull.reader, record.descriptor.digest, head):
            served = await self._recorded(pull, record, CacheStatus.REVALIDATED)
            if served is not None:
                await self._remember(pull, TagRecord(record.descriptor, began_s, record.previous), record)
                return served
        if dispensable and head.status == 200:
            keep_low_quota(pull, head)
        if pull.head and head.status == 200:
            await self._remember_moved(pull, record, moved_to, began_s)
            return relayed(pull, head, CacheStatus.EXPIRED)
        # The tag has moved; or the registry refuses, and only its answer to a GET has the body that says why.
        return await self._fetch(pull, CacheStatus.EXPIRED, record)

    async def _fetch(self, pull: Pull, status: CacheStatus, record: TagRecord | None = None) -> Served:
        """Pass the client's request on and keep what a GET brings."""
        began_s = time.time()
        answer = await self._core.upstream.ask(pull.request, MANIFEST_LIMIT_BYTES)
        await self._core.access.learn(pull.reader, answer, counts=counts(pull, answer))
        if answer.status < 400 and answer.status != 200:
            raise AnswerUnusable(answer.origin, answer.status)
        if answer.status != 200:
            await self._forget_if_gone(pull, answer)
            return relayed(pull, answer, status)
        if pull.head:
            await self._remember_moved(pull, record, described(answer), began_s)
            return relayed(pull, answer, status)
        try:
            descriptor = verified(pull, answer)
        except Unobtainable:
            self._core.upstream.meter.failed(pull.request.url.authority, WRONG_DIGEST)
            raise
        await self._core.access.bind(pull.reader, descriptor.digest, answer)
        await self._keep(pull, answer, TagRecord(descriptor, began_s), record)
        fields = described_by_us(answer, content_fields(descriptor.digest, descriptor.media_type))
        return Served(200, fields, answer.body, None, status)

    async def _forget_if_gone(self, pull: Pull, answer: Answer) -> None:
        """Forget a tag that the registry does not have any more: an outage must not bring it back."""
        if answer.status != 404:
            return
        self._core.not_found.keep(pull.absent, answer, method=pull.request.method, writes=pull.writes)
        if not isinstance(pull.manifest.reference, Digest):
            try:
                if await self._is_known_to(pull):
                    tag = str(pull.registry), pull.manifest.name, pull.manifest.reference
                    await self._changes.vanished(pull)
                    await self._core.store.forget_tag(*tag)
                    await self._shared.forget(*tag)
            except StoreError as error:
                self._core.store_failed(error)

    async def _is_known_to(self, pull: Pull) -> bool:
        """Whether the client may read what is stored of a tag: some registries say 404 to whom they hide an image from.

        Raises StoreError.
        """
        key, access = pull.tag_key, self._core.access
        for record in await self._core.store.tag_records(key.registry, key.name, key.tag):
            if await access.may_read_in_outage(pull.reader, record.descriptor.digest):
                return True
        return False

    async def _keep(self, pull: Pull, answer: Answer, now: TagRecord, before: TagRecord | None) -> None:
        store, descriptor = self._core.store, now.descriptor
        try:
            await store.put_content(descriptor.digest, answer.body, descriptor.media_type)
            await store.inventory.note_source(source_of(pull, descriptor, answer, time.time()))
            self._core.store_worked()
            self._shared.stored(descriptor)
        except StoreError as error:
            self._core.store_failed(error)
        else:
            if not isinstance(pull.manifest.reference, Digest):
                await self._remember(pull, now, before)

    async def _remember_moved(
        self, pull: Pull, record: TagRecord | None, moved_to: Descriptor | None, began_s: float
    ) -> None:
        """Record where a HEAD says the tag points now; what it pointed to stays at hand until the new is fetched."""
        if moved_to is None or isinstance(pull.manifest.reference, Digest):
            return
        previous = None
        if record is not None and moved_to.digest != record.descriptor.digest:
            previous = record.descriptor if self._core.store.holds(record.descriptor.digest) else record.previous
        await self._remember(pull, TagRecord(moved_to, began_s, previous), record)

    async def _remember(self, pull: Pull, record: TagRecord, before: TagRecord | None) -> None:
        if self._core.store.forgotten_tags != pull.forgotten_tags:
            return  # a push or a delete came in between: what the registry said before may be about the old tag
        try:
            await self._core.store.put_tag_record(pull.tag_key, record)
        except StoreError as error:
            self._core.store_failed(error)
        else:
            await self._changes.seen(pull, before, record)
        self._shared.remember(pull.tag_key, record)

    async def _record(self, key: TagKey) -> TagRecord | None:
        try:
            return await self._core.store.tag_record(key)
        except StoreError as error:
            self._core.store_failed(error)
            return None

    async def _stale(self, pull: Pull, fallback: Served | None, failure: UpstreamFailure, reason: str) -> Served | None:
        """Return the last good answer in the place of the registry's, if that may be: the bucket is asked then, too."""
        if not stale_allowed(failure):
            return None
        last = fallback or await self._last_good_of(pull, await self._shared.records_of_tag(pull))
        if last is None:
            return None
        return Served(last.status, last.fields, last.body, last.length_bytes, CacheStatus.STALE, reason)

    async def _last_good_here(self, pull: Pull, record: TagRecord | None) -> Served | None:
        served = None if record is None else await self._last_good(pull, record)
        return served or await self._last_good_of_others(pull)

    async def _last_good(self, pull: Pull, record: TagRecord) -> Served | None:
        """Return the newest answer that is whole in the store and that the client may have without being asked for."""
        for descriptor in (record.descriptor, record.previous):
            if descriptor is not None and await self._core.access.may_read_in_outage(pull.reader, descriptor.digest):
                served = await self._recorded(pull, TagRecord(descriptor, record.checked_at_s), CacheStatus.STALE)
                if served is not None:
                    return served
        return None

    async def _is_withheld(self, pull: Pull, record: TagRecord) -> bool:
        """Whether there is a last good answer, for others."""
        for descriptor in (record.descriptor, record.previous):
            if descriptor is not None and self._core.store.holds(descriptor.digest):
                return not await self._core.access.may_read_in_outage(pull.reader, descriptor.digest)
        return False

    async def _last_good_of_others(self, pull: Pull) -> Served | None:
        """Return what clients that accept other types have got for a tag, if this one accepts it and may have it, too.

        In an outage an image that one kind of client has pulled is there for all of them.
        """
        if isinstance(pull.manifest.reference, Digest):
            return None
        key = pull.tag_key
        try:
            records = await self._core.store.tag_records(key.registry, key.name, key.tag)
        except StoreError as error:
            self._core.store_failed(error)
            return None
        return await self._last_good_of(pull, records)

    async def _last_good_of(self, pull: Pull, records: Iterable[TagRecord]) -> Served | None:
        for record in records:
            if is_accepted(record.descriptor.media_type, pull.accepted):
                served = await self._last_good(pull, TagRecord(record.descriptor, record.checked_at_s))
                if served is not None:
                    return served
        return None

    async def _recorded(self, pull: Pull, record: TagRecord, status: CacheStatus) -> Served | None:
        """Serve what a record points to. A HEAD needs the record only."""
        if pull.head:
            return of_record(record, status)
        return of_tag(record, await self._content(pull, record.descriptor.digest), status)

    async def _stored(self, pull: Pull, digest: Digest) -> Served | None:
        """Serve stored content, if the client accepts its media type and may read it. Raises `Withheld`."""
        stored = await self._content(pull, digest)
        served = of_content(pull, digest, stored, CacheStatus.HIT)
        if stored is None or served is None:
            return None
        wish = Wish(pull.reader, digest, len(stored.body), pull.head_request)
        match await self._core.access.admit(wish):
            case Allowed(reason):
                return dataclasses.replace(served, reason=reason)
            case Refused() as refused:
                raise Withheld(refused)
            case FromRegistry():
                return None

    async def _content(self, pull: Pull, digest: Digest) -> StoredManifest | None:
        try:
            return await self._core.store.manifest(digest) or await self._shared.content(pull, digest)
        except StoreError as error:
            self._core.store_failed(error)
            return None
