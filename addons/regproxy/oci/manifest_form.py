"""Whether bytes that a registry calls a manifest are one, and of which type they say they are.

A document that is an image to one reader and an index to another passes a check on one machine and is something else
on the next: CVE-2021-41190. OCI image-spec 1.1, manifest.md and image-index.md ("mediaType"), and the distribution-spec
1.1 ("Pulling manifests": the `Content-Type` matches the document's own type).

Only the outermost object is looked at, and nothing below it is kept: an upstream chooses what is in it.
"""

import json

from regproxy.oci.media_types import is_manifest_media_type
from regproxy.oci.wording import shown

MAX_ELEMENTS = 250_000
"""Commas and brackets. A manifest of the largest size that is taken, 4 MiB, full of the shortest descriptors has
130,000; parsed, this many take some 15 MB for a moment."""

GENERIC_TYPE = "application/json"
"""What a manifest is served as whose type neither the registry nor the document tells."""

_SAYS_NOTHING = frozenset({"", GENERIC_TYPE, "text/plain", "application/octet-stream", "binary/octet-stream"})
_OF_IMAGE = frozenset({"layers", "config", "fslayers", "blobs"})
_OF_INDEX = "manifests"
_TYPE_KEY = "mediatype"


def manifest_media_type(body: bytes, content_type: str) -> str:
    """Return the media type to serve a manifest with: its registry's, or its own where that one tells none.

    Raises ValueError, the reason in words without the document's, for what is no manifest, or more than one at a time.
    """
    keys = _outermost(body)
    names = [name for name, _ in keys]
    if _OF_INDEX in names and not _OF_IMAGE.isdisjoint(names):
        raise ValueError("a manifest that is both an image and an index")
    for name in (_TYPE_KEY, _OF_INDEX, *sorted(_OF_IMAGE)):
        if names.count(name) > 1:
            raise ValueError(f"a manifest that has the key {name} twice")
    own = dict(keys).get(_TYPE_KEY)
    own_type = own if isinstance(own, str) else ""
    if is_manifest_media_type(content_type):
        if own_type and _essence(own_type) != _essence(content_type):
            raise ValueError(f"a manifest as {shown(content_type)} that says of itself that it is {shown(own_type)}")
        return content_type
    if is_manifest_media_type(own_type):
        return own_type
    if _essence(content_type) not in _SAYS_NOTHING and "json" not in content_type.lower():
        raise ValueError(f"a manifest as {shown(content_type)}, which is no type of a manifest")
    return content_type or GENERIC_TYPE


def _outermost(body: bytes) -> list[tuple[str, object]]:
    """Return the keys of a JSON object in lower case with their values, doubles included. Raises ValueError.

    Lower case: Go's decoder, which most clients use, takes `Manifests` for `manifests`.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_ELEMENTS:
        raise ValueError("a manifest of too many elements")
    outermost: list[tuple[str, object]] = []

    def forget(pairs: list[tuple[str, object]]) -> bool:
        outermost[:] = pairs  # the outermost object ends last
        return True

    try:
        is_object = json.loads(body, object_pairs_hook=forget) is True and body.lstrip()[:1] == b"{"
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise ValueError("a manifest that is not JSON, or not an object")
    return [(name.lower(), value) for name, value in outermost]


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip(" \t").lower()
