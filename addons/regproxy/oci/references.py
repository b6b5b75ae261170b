"""What a manifest or an image index names: the content that has to be there for it to be whole.

OCI image-spec 1.1, manifest.md and image-index.md; Docker's schema 2 has the same fields, and its schema 1 `fsLayers`.
What is only pointed to from outside (`subject`, `urls` of foreign layers) is not part of an image.
"""

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from regproxy.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class References:
    """The digests that one manifest names, each once, in its order."""

    manifests: tuple[Digest, ...] = ()
    """Of an index: the manifests of platforms."""
    blobs: tuple[Digest, ...] = ()
    """Config and layers."""


def references(body: bytes) -> References:
    """Return what a manifest names; nothing for what is none, and no more than what can be read of a broken one."""
    document = _document(body)
    blobs = [document.get("config"), *_elements(document, "layers"), *_elements(document, "blobs")]
    digests = [_digest(each, "digest") for each in blobs]
    digests += [_digest(each, "blobSum") for each in _elements(document, "fsLayers")]
    manifests = [_digest(each, "digest") for each in _elements(document, "manifests")]
    return References(_known(manifests), _known(digests))


def declared_media_type(body: bytes) -> str | None:
    """Return what a manifest says that it is; the field may be left out (OCI image-spec 1.1, manifest.md)."""
    media_type = _document(body).get("mediaType")
    return media_type if isinstance(media_type, str) else None


def subject(body: bytes) -> Digest | None:
    """Return the manifest that another one is about (a signature, an SBOM), by its field `subject`."""
    return _digest(_document(body).get("subject"), "digest")


def platforms(body: bytes) -> dict[Digest, str]:
    """Return what an index says of its manifests: `os/architecture` or `os/architecture/variant`."""
    found: dict[Digest, str] = {}
    for each in _elements(_document(body), "manifests"):
        digest, platform = _digest(each, "digest"), each.get("platform") if isinstance(each, dict) else None
        if digest is not None and isinstance(platform, dict):
            parts = (platform.get(part) for part in ("os", "architecture", "variant"))
            found[digest] = "/".join(part for part in parts if isinstance(part, str) and part)
    return found


def is_wanted(platform: str, wanted: AbstractSet[str]) -> bool:
    """Whether a platform is among those that are wanted; one without a variant stands for all of its variants."""
    return "all" in wanted or platform in wanted or platform.rpartition("/")[0] in wanted


def _document(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _elements(document: dict[str, object], field: str) -> list[object]:
    elements = document.get(field)
    return elements if isinstance(elements, list) else []


def _digest(descriptor: object, field: str) -> Digest | None:
    text = descriptor.get(field) if isinstance(descriptor, dict) else None
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _known(digests: list[Digest | None]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(digest for digest in digests if digest is not None))
