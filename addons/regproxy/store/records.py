"""Tag records: which manifest a tag meant, for whom, and when that was last checked; and their text form in the index.

A tag may mean different manifests for different `Accept` values (OCI distribution-spec 1.1, "Pulling manifests"), so
what the client accepts is part of the key. Keys cannot collide: a registry has no `/`, a name no `:`, a tag no `|`.
Whether a record is still fresh is decided elsewhere (policy.freshness).
"""

import json
import logging
from dataclasses import dataclass
from typing import Self

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest

_logger = logging.getLogger(__name__)

CONTENT_PREFIX = "content:"
TAG_PREFIX = "tag:"


def content_key(digest: Digest) -> str:
    """Return the index key of content."""
    return f"{CONTENT_PREFIX}{digest}"


def digest_of_key(key: str) -> Digest:
    """Return the digest of a content key; ValueError for any other key."""
    if not key.startswith(CONTENT_PREFIX):
        raise ValueError(f"not the key of content: {key[:80]!r}")
    return Digest.parse(key.removeprefix(CONTENT_PREFIX))


def tag_key_prefix(registry: str, name: str, tag: str) -> str:
    """Return what the keys of one tag have in common, whatever is accepted."""
    return f"{TAG_PREFIX}{registry}/{name}:{tag}|"


@dataclass(frozen=True, slots=True)
class TagKey:
    """One tag as one kind of client sees it."""

    registry: str
    """`host` or `host:port`."""

    name: str
    """Repository name."""

    tag: str
    """The tag, not a digest."""

    accepted: tuple[str, ...]
    """Accepted manifest media types, sorted (oci.media_types)."""

    def text(self) -> str:
        """Return the index key."""
        return tag_key_prefix(self.registry, self.name, self.tag) + ",".join(self.accepted)


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag meant when it was last checked."""

    descriptor: Descriptor
    """The manifest the tag points at."""

    checked_at_s: float
    """When the upstream was asked that answered last, Unix time in seconds (RFC 9111 section 4.2.3: the request's)."""

    previous: Descriptor | None = None
    """The manifest the tag pointed at before."""

    def to_json(self) -> str:
        """Return the text form; `from_json` reads it back."""
        return json.dumps(
            {
                "descriptor": _descriptor_fields(self.descriptor),
                "checked_at_s": self.checked_at_s,
                "previous": None if self.previous is None else _descriptor_fields(self.previous),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form; ValueError when it is anything else."""
        try:
            fields = json.loads(text)
            previous = fields["previous"]
            return cls(
                descriptor=_descriptor(fields["descriptor"]),
                checked_at_s=float(fields["checked_at_s"]),
                previous=None if previous is None else _descriptor(previous),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a tag record: {text[:80]!r}") from error


def _descriptor_fields(descriptor: Descriptor) -> dict[str, str | int]:
    return {
        "media_type": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size_bytes": descriptor.size_bytes,
    }


def _descriptor(fields: dict[str, object]) -> Descriptor:
    media_type, digest, size_bytes = fields["media_type"], fields["digest"], fields["size_bytes"]
    if not isinstance(media_type, str) or not isinstance(digest, str) or not isinstance(size_bytes, int):
        raise TypeError("a descriptor needs two texts and a number")
    return Descriptor(media_type, Digest.parse(digest), size_bytes)


def read_tag_record(key: str, text: str) -> TagRecord | None:
    """Return the record of an index row; one that cannot be read is as good as none."""
    try:
        return TagRecord.from_json(text)
    except ValueError as error:
        _logger.warning("ignoring the tag record %s: %s", key[:300], error)
        return None
