"""What a manifest or an image index names: the content that has to be there for it to be whole.

OCI image-spec 1.1, manifest.md and image-index.md; Docker's schema 2 has the same fields, and its schema 1 `fsLayers`.
What is only pointed to from outside (`subject`, `urls` of foreign layers) is not part of an image.
"""

import json
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
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return References()
    if not isinstance(document, dict):
        return References()
    blobs = [document.get("config"), *_elements(document, "layers"), *_elements(document, "blobs")]
    digests = [_digest(each, "digest") for each in blobs]
    digests += [_digest(each, "blobSum") for each in _elements(document, "fsLayers")]
    manifests = [_digest(each, "digest") for each in _elements(document, "manifests")]
    return References(_known(manifests), _known(digests))


def platforms(body: bytes) -> dict[Digest, str]:
    """Return what an index says of its manifests: `os/architecture` or `os/architecture/variant`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    found: dict[Digest, str] = {}
    for each in _elements(document, "manifests") if isinstance(document, dict) else ():
        digest, platform = _digest(each, "digest"), each.get("platform") if isinstance(each, dict) else None
        if digest is not None and isinstance(platform, dict):
            parts = (platform.get(part) for part in ("os", "architecture", "variant"))
            found[digest] = "/".join(part for part in parts if isinstance(part, str) and part)
    return found


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
