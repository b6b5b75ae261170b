"""How long a tag may be served without asking upstream, and what a request is called in logs and headers.

The three tiers and the words for requests are those of the predecessor (rpardini/docker-registry-proxy 0.7.0), so that
its settings and its users' log filters keep working. It matched `^/v2/(.*)/manifests/EXPRESSION` on the decoded path;
here EXPRESSION is matched from the first character of the tag, case-sensitive and not anchored at the end, which is the
same for every expression without a slash. Deviation: in `stable|nightly` both alternatives start where the tag starts.

Whether a checked tag is still fresh is decided in `regproxy.policy.freshness`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal, Self, assert_never

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import V1, Blob, BlobUpload, Catalog, Endpoint, Manifest, Other, Ping, Referrers, Tags
from regproxy.oci.names import Tag


class RequestClass(StrEnum):
    """The `request_type` of a log line and the `Cache-Type` of an answer."""

    BLOB_BY_DIGEST = "blob-by-digest"
    BLOB_MUTABLE = "blob-mutable"
    MANIFEST_BY_DIGEST = "manifest-by-digest"
    MANIFEST_PRIMARY = "manifest-primary"
    MANIFEST_SECONDARY = "manifest-secondary"
    MANIFEST_DEFAULT = "manifest-default"
    MANIFEST_DEFAULT_DISABLED = "manifest-default-disabled"
    UNKNOWN = "unknown"
    NONE = ""
    """The dead `/v1` API, which is refused."""


type TierName = Literal["primary", "secondary", "default"]


@dataclass(frozen=True, slots=True)
class Tier:
    """A set of tags that stay fresh for the same time."""

    name: TierName

    pattern: re.Pattern[str] | None
    """Matched from the start of the tag; None takes every tag."""

    lifetime_s: float
    """Seconds from a check with upstream to the next; 0 asks every time."""

    @classmethod
    def from_expression(cls, name: TierName, expression: str, lifetime_s: float) -> Self:
        """Compile the operator's regular expression for tags; ValueError says why it is not one."""
        try:
            pattern = re.compile(expression, re.ASCII)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{expression!r} is not a regular expression: {error}") from error
        return cls(name, pattern, lifetime_s)


@lru_cache(maxsize=4096)
def choose_tier(tag: Tag, tiers: tuple[Tier, ...]) -> Tier | None:
    """Return the first tier that takes a tag, or None. Remembered, because an operator's expression may be slow."""
    return next((tier for tier in tiers if tier.pattern is None or tier.pattern.match(tag)), None)


def tag_lifetime_s(tag: Tag, tiers: tuple[Tier, ...], *, caching_enabled: bool) -> float:
    """Return the seconds for which a tag is served without asking upstream; 0 when tags are not cached."""
    tier = choose_tier(tag, tiers) if caching_enabled else None
    return 0.0 if tier is None else tier.lifetime_s


def request_class(endpoint: Endpoint, tiers: tuple[Tier, ...], *, caching_enabled: bool) -> RequestClass:
    """Return the predecessor's word for a request. It is a name for people, not a verdict on caching."""
    match endpoint:
        case Blob(digest=Digest(algorithm="sha256")):
            return RequestClass.BLOB_BY_DIGEST
        case Blob() | BlobUpload():
            return RequestClass.BLOB_MUTABLE
        case Manifest():
            return _manifest_class(endpoint, tiers, caching_enabled=caching_enabled)
        case Ping() | Tags() | Referrers() | Catalog() | Other():
            return RequestClass.UNKNOWN
        case V1():
            return RequestClass.NONE
        case _:
            assert_never(endpoint)


def _manifest_class(manifest: Manifest, tiers: tuple[Tier, ...], *, caching_enabled: bool) -> RequestClass:
    # Deviation: the predecessor took a sha512 digest for a tag; here no digest is ever revalidated.
    if isinstance(manifest.reference, Digest):
        return RequestClass.MANIFEST_BY_DIGEST
    if not caching_enabled:
        return RequestClass.MANIFEST_DEFAULT_DISABLED
    tier = choose_tier(manifest.reference, tiers)
    return RequestClass.MANIFEST_DEFAULT if tier is None else RequestClass(f"manifest-{tier.name}")
