"""Media types of manifests, and which of them a client can read.

RFC 9110 section 12.5.1 (Accept), OCI image-spec 1.1 and the Docker image manifest specifications. What a client accepts
is reduced to a set, because it is part of a tag's cache key: two clients with the same set get the same manifest, in
whatever order and with whatever weights they name the types.

Negotiation itself is the upstream's: weights are not compared here.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

MANIFEST_MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.artifact.manifest.v1+json",  # withdrawn from the specification, still stored by registries
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
"""Every type a manifest is served with; what we ask for when a client does not say."""

ANY_TYPE = "*/*"

_TOKEN = r"[!#$%&'*+.^_`|~0-9a-z-]+"  # noqa: S105  RFC 9110 section 5.6.2, not a password
_MEDIA_RANGE = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*(?:;(.*))?", re.DOTALL)
_ZERO_WEIGHT = re.compile(r"(?:^|;)[ \t]*q=0(?:\.0{0,3})?[ \t]*(?:;|$)")
# A comma inside a quoted parameter does not end an element.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)


def accepted_manifest_types(accept_headers: Sequence[str]) -> tuple[str, ...]:
    """Return the set of types that a client accepts, sorted, in lower case, without parameters.

    `accept_headers` are the values of all `Accept` fields. Wildcards stay as they are; types of weight 0 are left out;
    malformed elements are skipped. A client that says nothing accepts `*/*`.
    """
    return _accepted(tuple(accept_headers))


@lru_cache(maxsize=1024)  # every client sends one of a few lists, with every request
def _accepted(accept_headers: tuple[str, ...]) -> tuple[str, ...]:
    accepted: set[str] = set()
    refused: set[str] = set()
    for element in _elements(accept_headers):
        match = _MEDIA_RANGE.fullmatch(element.strip(" \t").lower())
        if match is not None:
            (refused if _ZERO_WEIGHT.search(match[2] or "") else accepted).add(match[1])
    return tuple(sorted(accepted)) if accepted or refused else (ANY_TYPE,)


def is_accepted(media_type: str, accepted: Iterable[str]) -> bool:
    """Whether a type is in a set that `accepted_manifest_types` returned."""
    essence = _essence(media_type)
    return not {essence, essence.partition("/")[0] + "/*", ANY_TYPE}.isdisjoint(accepted)


def is_manifest_media_type(media_type: str) -> bool:
    """Whether content of this `Content-Type` is a manifest, by the type alone; parameters do not matter."""
    return _essence(media_type) in MANIFEST_MEDIA_TYPES


def _essence(media_type: str) -> str:
    """Return type and subtype in lower case, without parameters."""
    return media_type.partition(";")[0].strip(" \t").lower()


def _elements(headers: Iterable[str]) -> Iterable[str]:
    for header in headers:
        yield from _ELEMENT.findall(header)
