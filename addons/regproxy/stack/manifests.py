"""When a manifest comes from the store and when from the registry.

By digest: stored content is served if its media type is one the client accepts. By tag, in this order: a fresh record
is served; a stale one is revalidated by HEAD, which costs nothing of Docker Hub's quota, and a GET follows only when
the tag has moved; when the registry fails to answer, the last good answer is served and said to be stale. 401, 403
and 404 are answers, not failures (`policy.freshness`).
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Manifest
from regproxy.oci.media_types import is_accepted
from regproxy.oci.names import Registry
from regproxy.origin.client import UpstreamRequest
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.origin.single_flight import SingleFlight
from regproxy.policy.freshness import Status, TimedOut, is_fresh, stale_allowed
from regproxy.stack.answers import content_fields, passed_on
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus
from regproxy.store.errors import StoreError
from regproxy.store.hot import StoredManifest
from regproxy.store.records import TagKey, TagRecord

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
"""The distribution-spec asks registries to take manifests of 4 MiB ("Pushing Manifests"); containerd reads no larger
ones.
"""

REVALIDATION_LIMIT_S = 5.0
"""How long a client that could be served a stale answer waits for a fresh one."""


class Unobtainable(Exception):  # noqa: N818 - the state of the manifest
    """There is no answer to give; `status` is what the client gets."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client wants to have, and how fresh."""

    registry: Registry
    manifest: Manifest
    accepted: tuple[str, ...]
    head: bool
    lifetime_s: float
    """How long an answer for this tag is fresh; 0 revalidates every time."""

    @property
    def tag_key(self) -> TagKey:
        """Where the answer for this tag and these media types is recorded."""
        return TagKey(str(self.registry), self.manifest.name, str(self.manifest.reference), self.accepted)


@dataclass(frozen=True, slots=True)
class Pull(Wanted):
    """One request for a manifest, and how to ask the registry for it."""

    get_request: UpstreamRequest
    head_request: UpstreamRequest

    @classmethod
    def of(cls, wanted: Wanted, get_request: UpstreamRequest, head_request: UpstreamRequest) -> Self:
        """Add to what is wanted how to ask for it."""
        return cls(
            wanted.registry,
            wanted.manifest,
            wanted.accepted,
            wanted.head,
            wanted.lifetime_s,
            get_request=get_request,
            head_request=head_request,
        )

    @property
    def request(self) -> UpstreamRequest:
        """The client's own request, passed on: HEAD stays HEAD."""
        return self.head_request if self.head else self.get_request


@dataclass(frozen=True, slots=True)
class Served:
    """An answer for the client."""

    status: int
    fields: dict[str, str]
    body: bytes
    length_bytes: int | None
    """The length a HEAD declares; None for the body's own."""
    cache_status: CacheStatus
    reason: str | None = None
    """Why this is not a fresh answer."""


class ManifestSource:
    """Serves manifests from the store and the registry."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._flights: SingleFlight[tuple[UpstreamRequest, tuple[str, ...]], Served] = SingleFlight()

    def serve_warm(self, wanted: Wanted) -> Served | None:
        """Return a fresh answer that is in memory, without waiting. Raises StoreError."""
        store, digest = self._core.store, wanted.manifest.reference
        if not isinstance(digest, Digest):
            record = store.recall_tag(wanted.tag_key)
            if record is None or not is_fresh(record.checked_at_s, wanted.lifetime_s, time.time()):
                return None
            if wanted.head:
                return _of_record(record, CacheStatus.HIT)
            return _of_tag(record, store.recall_manifest(record.descriptor.digest), CacheStatus.HIT)
        return _of_content(wanted, digest, store.recall_manifest(digest), CacheStatus.HIT)

    async def serve(self, pull: Pull) -> Served:
        """Return the answer. Raises `Unobtainable`."""
        if isinstance(pull.manifest.reference, Digest):
            return await self._stored(pull, pull.manifest.reference, CacheStatus.HIT) or await self._shared_ask(
                pull, None
            )
        record = await self._record(pull.tag_key)
        if record is not None and is_fresh(record.checked_at_s, pull.lifetime_s, time.time()):
            served = await self._recorded(pull, record, CacheStatus.HIT)
            if served is not None:
                return served
        return await self._shared_ask(pull, record)

    async def _shared_ask(self, pull: Pull, record: TagRecord | None) -> Served:
        """Ask the registry once for everyone who asks the same, with the same authorization, at the same time."""
        return await self._flights.run((pull.request, pull.accepted), lambda: self._ask(pull, record))

    async def _ask(self, pull: Pull, record: TagRecord | None) -> Served:
        fallback = None if record is None else await self._last_good(pull, record)
        try:
            async with asyncio.timeout(REVALIDATION_LIMIT_S if fallback is not None else None):
                served = await self._from_registry(pull, record)
        except UpstreamUnavailable as error:
            reason, failure = str(error), error.failure
        except TimeoutError:
            reason, failure = f"{pull.registry} did not answer in {REVALIDATION_LIMIT_S:g} s", TimedOut()
        except AnswerTooLarge as error:
            raise Unobtainable(str(error), 502) from error
        else:
            if fallback is None or not stale_allowed(Status(served.status)):
                return served
            reason, failure = f"{pull.registry} answered {served.status}", Status(served.status)
        if fallback is not None and stale_allowed(failure):
            return Served(
                fallback.status, fallback.fields, fallback.body, fallback.length_bytes, CacheStatus.STALE, reason
            )
        raise Unobtainable(reason, 504 if isinstance(failure, TimedOut) else 502)

    async def _from_registry(self, pull: Pull, record: TagRecord | None) -> Served:
        """Revalidate a stale record by HEAD, or fetch."""
        if record is None:
            return await self._fetch(pull, CacheStatus.MISS)
        head = await self._core.upstream.ask(pull.head_request, MANIFEST_LIMIT_BYTES)
        if stale_allowed(Status(head.status)):
            return _relayed(pull, head, CacheStatus.EXPIRED)
        described = _described(head)
        if described is not None and described.digest == record.descriptor.digest:
            served = await self._recorded(pull, record, CacheStatus.REVALIDATED)
            if served is not None:
                await self._remember(pull.tag_key, TagRecord(record.descriptor, time.time(), record.previous))
                return served
        if pull.head and head.status == 200:
            await self._remember_moved(pull, record, described)
            return _relayed(pull, head, CacheStatus.EXPIRED)
        # The tag has moved; or the registry refuses, and only its answer to a GET has the body that says why.
        return await self._fetch(pull, CacheStatus.EXPIRED, record)

    async def _fetch(self, pull: Pull, status: CacheStatus, record: TagRecord | None = None) -> Served:
        """Pass the client's request on and keep what a GET brings."""
        answer = await self._core.upstream.ask(pull.request, MANIFEST_LIMIT_BYTES)
        if answer.status != 200:
            return _relayed(pull, answer, status)
        if pull.head:
            await self._remember_moved(pull, record, _described(answer))
            return _relayed(pull, answer, status)
        descriptor = _verified(pull, answer)
        await self._keep(pull, descriptor, answer.body)
        fields = passed_on(answer) | content_fields(descriptor.digest, descriptor.media_type)
        return Served(200, fields, answer.body, None, status)

    async def _keep(self, pull: Pull, descriptor: Descriptor, body: bytes) -> None:
        try:
            await self._core.store.put_content(descriptor.digest, body, descriptor.media_type)
            self._core.store_worked()
        except StoreError as error:
            self._core.store_failed(error)
        else:
            if not isinstance(pull.manifest.reference, Digest):
                await self._remember(pull.tag_key, TagRecord(descriptor, time.time()))

    async def _remember_moved(self, pull: Pull, record: TagRecord | None, described: Descriptor | None) -> None:
        """Record where a HEAD says the tag points now; what it pointed to stays at hand until the new is fetched."""
        if described is None or isinstance(pull.manifest.reference, Digest):
            return
        previous = None
        if record is not None and described.digest != record.descriptor.digest:
            previous = record.descriptor if self._has(record.descriptor.digest) else record.previous
        await self._remember(pull.tag_key, TagRecord(described, time.time(), previous))

    async def _remember(self, key: TagKey, record: TagRecord) -> None:
        try:
            await self._core.store.put_tag_record(key, record)
        except StoreError as error:
            self._core.store_failed(error)

    async def _record(self, key: TagKey) -> TagRecord | None:
        try:
            return await self._core.store.tag_record(key)
        except StoreError as error:
            self._core.store_failed(error)
            return None

    async def _last_good(self, pull: Pull, record: TagRecord) -> Served | None:
        """Return the newest answer that is whole in the store."""
        served = await self._recorded(pull, record, CacheStatus.STALE)
        if served is None and record.previous is not None:
            served = await self._recorded(pull, TagRecord(record.previous, record.checked_at_s), CacheStatus.STALE)
        return served

    async def _recorded(self, pull: Pull, record: TagRecord, status: CacheStatus) -> Served | None:
        """Serve what a record points to. A HEAD needs the record only."""
        if pull.head:
            return _of_record(record, status)
        return _of_tag(record, await self._content(record.descriptor.digest), status)

    async def _stored(self, pull: Pull, digest: Digest, status: CacheStatus) -> Served | None:
        """Serve stored content, if the client accepts its media type."""
        return _of_content(pull, digest, await self._content(digest), status)

    async def _content(self, digest: Digest) -> StoredManifest | None:
        try:
            return await self._core.store.manifest(digest)
        except StoreError as error:
            self._core.store_failed(error)
            return None

    def _has(self, digest: Digest) -> bool:
        try:
            stored = self._core.store.open_content(digest)
        except StoreError:
            return False
        if stored is not None:
            stored.close()
        return stored is not None


def _of_record(record: TagRecord, status: CacheStatus) -> Served:
    """Answer a HEAD from a tag record alone."""
    descriptor = record.descriptor
    return Served(200, content_fields(descriptor.digest, descriptor.media_type), b"", descriptor.size_bytes, status)


def _of_tag(record: TagRecord, stored: StoredManifest | None, status: CacheStatus) -> Served | None:
    """Answer a GET with a tag's content, in the type that its registry chose for what this client accepts."""
    if stored is None:
        return None
    fields = content_fields(record.descriptor.digest, record.descriptor.media_type)
    return Served(200, fields, stored.body, None, status)


def _of_content(wanted: Wanted, digest: Digest, stored: StoredManifest | None, status: CacheStatus) -> Served | None:
    """Answer with stored content, if the client accepts its media type."""
    if stored is None or not is_accepted(stored.media_type, wanted.accepted):
        return None
    body, length = (b"", len(stored.body)) if wanted.head else (stored.body, None)
    return Served(200, content_fields(digest, stored.media_type), body, length, status)


def _verified(pull: Pull, answer: Answer) -> Descriptor:
    """Check a manifest against its digest. Raises `Unobtainable`: no other body is served or stored."""
    reference = pull.manifest.reference
    declared = _declared_digest(answer)
    expected = reference if isinstance(reference, Digest) else declared
    actual = Digest.of(answer.body, expected.algorithm if expected is not None else "sha256")
    if expected is not None and actual != expected:
        raise Unobtainable(
            f"{answer.origin} sent a manifest that hashes to {actual} instead of {expected}: not served, not stored",
            502,
        )
    return Descriptor(answer.headers.get("Content-Type", "application/json"), actual, len(answer.body))


def _described(head: Answer) -> Descriptor | None:
    """Return what an answer to HEAD says the tag points to; some registries leave the digest or the length out."""
    digest, length = _declared_digest(head), head.headers.get("Content-Length", "")
    media_type = head.headers.get("Content-Type")
    if head.status != 200 or digest is None or media_type is None or not length.isdecimal():
        return None
    return Descriptor(media_type, digest, int(length))


def _declared_digest(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None


def _relayed(pull: Pull, answer: Answer, status: CacheStatus) -> Served:
    length = answer.headers.get("Content-Length", "")
    declared = int(length) if pull.head and length.isdecimal() else None
    return Served(answer.status, passed_on(answer), b"" if pull.head else answer.body, declared, status)
