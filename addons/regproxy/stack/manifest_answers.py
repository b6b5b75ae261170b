"""What is wanted of a manifest, what is answered, and how an answer is read from the registry's or the store's.

No I/O but the clock: `manifests.ManifestSource` asks, this says what the replies mean.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Manifest
from regproxy.oci.manifest_form import manifest_media_type
from regproxy.oci.media_types import is_accepted, is_manifest_media_type
from regproxy.oci.names import Registry
from regproxy.origin.errors import Answer, UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.freshness import NotAsked, Status, TimedOut, UpstreamFailure
from regproxy.policy.openers import opener_text
from regproxy.policy.quota import parse_quota, spares
from regproxy.stack.access import Refused
from regproxy.stack.access_questions import Reader
from regproxy.stack.answers import content_fields, passed_on, status_for
from regproxy.stack.exchange import CacheStatus
from regproxy.stack.not_found import Absent
from regproxy.store.hot import StoredManifest
from regproxy.store.records import TagKey, TagRecord
from regproxy.store.sources import Source


class Withheld(Exception):  # noqa: N818 - the state of the manifest
    """The client must not have what is stored."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.refused = refused


class Unobtainable(Exception):  # noqa: N818 - the state of the manifest
    """There is no answer to give; `status` is what the client gets, and `retry_at_s` (monotonic) when to come back."""

    def __init__(self, reason: str, status: int, retry_at_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_at_s = retry_at_s

    @classmethod
    def because(cls, reason: str, failure: UpstreamFailure, retry_at_s: float | None) -> Self:
        """Choose the status by how the upstream failed."""
        return cls(reason, status_for(failure, 504 if isinstance(failure, TimedOut | NotAsked) else 502), retry_at_s)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client wants to have, and how fresh."""

    registry: Registry
    manifest: Manifest
    accepted: tuple[str, ...]
    head: bool
    lifetime_s: float
    """How long an answer for this tag is fresh; 0 revalidates every time."""
    insists: bool
    """Whether the client wants the registry's own word (`Cache-Control: no-cache`)."""
    reader: Reader

    @property
    def tag_key(self) -> TagKey:
        """Where the answer for this tag and these media types is recorded."""
        return TagKey(str(self.registry), self.manifest.name, str(self.manifest.reference), self.accepted)


@dataclass(frozen=True, slots=True)
class Pull(Wanted):
    """One request for a manifest, and how to ask the registry for it."""

    get_request: UpstreamRequest
    head_request: UpstreamRequest
    forgotten_tags: int
    """How many tags the store had been told to forget when the request came (`Store.forgotten_tags`)."""
    absent: Absent
    """What is remembered if the registry does not have it."""
    writes: int
    """`NotFound.writes` when the request came."""

    @classmethod
    def of(  # noqa: PLR0913 - one for each field
        cls,
        wanted: Wanted,
        get_request: UpstreamRequest,
        head_request: UpstreamRequest,
        *,
        forgotten_tags: int,
        fingerprint: str,
        writes: int,
    ) -> Self:
        """Add to what is wanted how to ask for it."""
        reference = str(wanted.manifest.reference)
        return cls(
            wanted.registry,
            wanted.manifest,
            wanted.accepted,
            wanted.head,
            wanted.lifetime_s,
            wanted.insists,
            wanted.reader,
            get_request=get_request,
            head_request=head_request,
            forgotten_tags=forgotten_tags,
            absent=Absent(wanted.registry, wanted.manifest.name, reference, wanted.accepted, fingerprint),
            writes=writes,
        )

    @property
    def request(self) -> UpstreamRequest:
        """The client's own request, passed on: HEAD stays HEAD."""
        return self.head_request if self.head else self.get_request

    @property
    def question(self) -> str:
        """What is asked, and for whom: the same text for all who would get the same answer."""
        asked = (self.registry, self.manifest.name, self.manifest.reference, ",".join(self.accepted))
        return " ".join(map(str, (*asked, self.absent.fingerprint, self.reader.client.key)))


@dataclass(frozen=True, slots=True)
class Served:
    """An answer for the client."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    length_bytes: int | None
    """The length a HEAD declares; None for the body's own."""
    cache_status: CacheStatus
    reason: str | None = None
    """Why this is not a fresh answer."""


def of_record(record: TagRecord, status: CacheStatus) -> Served:
    """Answer a HEAD from a tag record alone."""
    descriptor = record.descriptor
    return Served(200, content_fields(descriptor.digest, descriptor.media_type), b"", descriptor.size_bytes, status)


def of_tag(record: TagRecord, stored: StoredManifest | None, status: CacheStatus) -> Served | None:
    """Answer a GET with a tag's content, in the type that its registry chose for what this client accepts.

    None for another type than the content was verified with: a HEAD may have said anything.
    """
    if stored is None or _contradicts(record.descriptor.media_type, stored.media_type):
        return None
    fields = content_fields(record.descriptor.digest, record.descriptor.media_type)
    return Served(200, fields, stored.body, None, status)


def _contradicts(recorded: str, verified_type: str) -> bool:
    """Whether both are types of manifests, and not the same one."""
    if recorded == verified_type:
        return False
    types = [media_type.partition(";")[0].strip().lower() for media_type in (recorded, verified_type)]
    return all(map(is_manifest_media_type, types)) and types[0] != types[1]


def of_content(wanted: Wanted, digest: Digest, stored: StoredManifest | None, status: CacheStatus) -> Served | None:
    """Answer with stored content, if the client accepts its media type."""
    if stored is None or not is_accepted(stored.media_type, wanted.accepted):
        return None
    body, length = (b"", len(stored.body)) if wanted.head else (stored.body, None)
    return Served(200, content_fields(digest, stored.media_type), body, length, status)


def verified(pull: Pull, answer: Answer) -> Descriptor:
    """Check a manifest against its digest, and that it is one. Raises `Unobtainable`."""
    reference = pull.manifest.reference
    declared = _declared_digest(answer)
    expected = reference if isinstance(reference, Digest) else declared
    actual = Digest.of(answer.body, expected.algorithm if expected is not None else "sha256")
    if expected is not None and actual != expected:
        raise Unobtainable(
            f"{answer.origin} sent a manifest that hashes to {actual} instead of {expected}: not served, not stored",
            502,
        )
    try:
        media_type = manifest_media_type(answer.body, answer.headers.get("Content-Type", ""))
    except ValueError as error:
        raise Unobtainable(f"{answer.origin} sent {error}: not served, not stored", 502) from None
    return Descriptor(media_type, actual, len(answer.body))


def described(head: Answer) -> Descriptor | None:
    """Return what an answer to HEAD says the tag points to; some registries leave the digest or the length out."""
    digest, length = _declared_digest(head), head.headers.get("Content-Length", "")
    media_type = head.headers.get("Content-Type")
    if head.status != 200 or digest is None or media_type is None or not length.isdecimal():
        return None
    return Descriptor(media_type, digest, int(length))


def source_of(pull: Pull, descriptor: Descriptor, answer: Answer, now_s: float) -> Source:
    """Return where a manifest came from."""
    trace = pull.get_request.trace
    opener = trace.opener if trace is not None else opener_text(answer.opened_by, None)
    name = pull.manifest.name
    return Source(str(pull.registry), name, descriptor.digest, now_s, answer.origin, opener)


def _declared_digest(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None


def relayed(pull: Pull, answer: Answer, status: CacheStatus) -> Served:
    """Give the client the registry's answer as it is."""
    length = answer.headers.get("Content-Length", "")
    declared = int(length) if pull.head and length.isdecimal() else None
    return Served(answer.status, passed_on(answer), b"" if pull.head else answer.body, declared, status)


def keep_low_quota(pull: Pull, head: Answer) -> None:
    """Raise `UpstreamUnavailable` when what a tag has moved to would cost of a low quota."""
    now_s = time.time()
    quota = parse_quota(head.headers, now_s)
    if quota is not None and spares(quota, "GET", now_s):
        left = f"{quota.remaining} of {quota.limit}"
        raise UpstreamUnavailable(f"the tag has moved, but the quota at {pull.registry} is low ({left})", Status(429))


def counts(pull: Pull, answer: Answer) -> bool:
    """Whether an answer shows whom the registry lets read: its own word, and for a success a manifest, not a page."""
    media_type = answer.headers.get("Content-Type", "").lower()
    is_manifest = "json" in media_type or "jws" in media_type
    return answer.origin == pull.get_request.url.origin and (answer.status != 200 or is_manifest)
