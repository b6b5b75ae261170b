"""What a layout says of its images: `index.json`, read and written (OCI image-spec 1.1, image-layout.md)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from regproxy.cli.layouts import Layout, LayoutError, blob_name, read_small
from regproxy.oci.digest import Digest
from regproxy.oci.media_types import is_manifest_media_type
from regproxy.oci.references import References, references, subject

REF_NAME = "org.opencontainers.image.ref.name"
"""What skopeo and podman call an image in a layout by. Here it is the full name, as they write it, too."""

FULL_NAME = "io.containerd.image.name"
"""Where containerd and Docker have the full name."""

CHECKED_AT = "registry-proxy.checked-at"
"""Unix time when the registry last confirmed the tag; of the layouts that are written here."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a layout."""

    digest: Digest
    media_type: str
    names: tuple[str, ...] = ()
    """What it is called, the fullest first; none for what only belongs to another one."""
    checked_at_s: int = 0
    """Unix time; 0 when nothing is said of it."""

    @property
    def full_name(self) -> str | None:
        """The first name that says registry, repository and tag or digest."""
        return next(filter(is_full_name, self.names), None)


def is_full_name(name: str) -> bool:
    """Whether a name begins with a registry, and ends with a tag or a digest."""
    first, slash, path = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost") and (":" in path or "@" in path)


def read_index(layout: Layout) -> list[Entry]:
    """Return the images of a layout. Raises LayoutError."""
    if layout.size_bytes("index.json") is None and layout.size_bytes("manifest.json") is not None:
        raise LayoutError(
            "that is Docker's older form: save it with Docker 25 or newer, or `skopeo copy docker-archive:FILE oci:DIR`"
        )
    version = _parsed(layout, "oci-layout").get("imageLayoutVersion")
    if not str(version).startswith("1."):
        raise LayoutError(f"oci-layout: version {version!r:.40} is not known, 1.0.0 is")
    entries = _parsed(layout, "index.json").get("manifests")
    if not isinstance(entries, list):
        raise LayoutError("index.json names no manifests")
    return [_entry(each) for each in entries]


def written_index(images: Iterable[dict[str, Any]], before: Iterable[dict[str, Any]] = ()) -> bytes:
    """Return `index.json` for what the API described; what was there before stays, but for the same names."""
    added = [_described(image) for image in images]
    names = {_name_of(each) for each in added}
    kept = [each for each in before if _name_of(each) not in names]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*kept, *added]}
    return json.dumps(index, indent=2).encode() + b"\n"


def closure_of(layout: Layout, root: Entry) -> tuple[list[tuple[Digest, str, bytes]], list[Digest]]:
    """Return the manifests of an image, those that others name first, and its blobs. Raises LayoutError.

    Platforms that an index names may be missing, but not all of them.
    """
    manifests: dict[Digest, tuple[str, bytes]] = {}
    blobs: dict[Digest, None] = {}

    def visit(digest: Digest, media_type: str) -> None:
        if digest in manifests:
            return
        if len(manifests) + len(blobs) > _MOST_CONTENTS:
            raise LayoutError(f"{root.digest} leads to more than {_MOST_CONTENTS} contents")
        body = read_small(layout, blob_name(digest))
        actual = Digest.of(body, digest.algorithm)
        if actual != digest:
            raise LayoutError(f"{blob_name(digest)} hashes to {actual}: the layout is damaged or forged")
        named = references(body)
        _require(layout, digest, named)
        for child, child_type in _children(body):
            if layout.size_bytes(blob_name(child)) is not None:
                visit(child, child_type)
        manifests.setdefault(digest, (media_type, body))
        blobs.update(dict.fromkeys(named.blobs))

    try:
        visit(root.digest, root.media_type)
    except RecursionError:
        raise LayoutError(f"{root.digest}: indexes in indexes without end") from None
    return [(digest, *manifest) for digest, manifest in manifests.items()], list(blobs)


def referrers_of(layout: Layout, entries: Iterable[Entry], digests: Iterable[Digest]) -> list[Entry]:
    """Return the entries that are about one of the digests, or about another of these. Raises LayoutError."""
    about, known = {}, set(digests)
    for entry in entries:
        if entry.digest not in known and layout.size_bytes(blob_name(entry.digest)) is not None:
            about[entry] = subject(read_small(layout, blob_name(entry.digest)))
    found: list[Entry] = []
    while new := [entry for entry, named in about.items() if named in known and entry not in found]:
        found += new
        known.update(entry.digest for entry in new)
    return found


_MOST_CONTENTS = 10_000


def _require(layout: Layout, digest: Digest, named: References) -> None:
    lacking = [blob for blob in named.blobs if layout.size_bytes(blob_name(blob)) is None]
    if lacking:
        raise LayoutError(f"{digest} needs what the layout does not have: {', '.join(map(str, lacking))}")
    if named.manifests and all(layout.size_bytes(blob_name(each)) is None for each in named.manifests):
        raise LayoutError(f"{digest}: the layout has none of the platforms that it names")


def _children(body: bytes) -> list[tuple[Digest, str]]:
    """Return the manifests that an index names, with their types."""
    named = set(references(body).manifests)
    if not named:
        return []
    found = {}
    for each in json.loads(body)["manifests"]:
        if isinstance(each, dict) and isinstance(each.get("mediaType"), str) and isinstance(each.get("digest"), str):
            found[each["digest"]] = each["mediaType"]
    return [(digest, found[str(digest)]) for digest in named if str(digest) in found]


def _entry(described: object) -> Entry:
    fields: dict[str, Any] = described if isinstance(described, dict) else {}
    annotations = fields.get("annotations")
    said: dict[str, Any] = annotations if isinstance(annotations, dict) else {}
    try:
        digest = Digest.parse(str(fields.get("digest", "")))
    except ValueError as error:
        raise LayoutError(f"index.json: {error}") from None
    media_type = str(fields.get("mediaType", ""))
    if not is_manifest_media_type(media_type):
        raise LayoutError(f"index.json: {digest} is of type {media_type!r:.100}, which is no manifest's")
    names = (said.get(FULL_NAME), said.get(REF_NAME))
    checked_at = said.get(CHECKED_AT, "")
    return Entry(
        digest,
        media_type,
        tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name)),
        int(checked_at)
        if isinstance(checked_at, str) and checked_at.isascii() and checked_at.isdecimal() and len(checked_at) < 12
        else 0,
    )


def _parsed(layout: Layout, name: str) -> dict[str, Any]:
    try:
        document = json.loads(read_small(layout, name))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise LayoutError(f"{name} is no JSON object")
    return document


def _described(image: dict[str, Any]) -> dict[str, Any]:
    name = image["image"]
    annotations = {REF_NAME: name, FULL_NAME: name}
    if image["checked_at_s"] is not None:
        annotations[CHECKED_AT] = str(int(image["checked_at_s"]))
    named = {} if image["referrer"] and "@" in name else {"annotations": annotations}
    return {"mediaType": image["media_type"], "digest": image["digest"], "size": image["size_bytes"], **named}


def _name_of(described: dict[str, Any]) -> str:
    annotations = described.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return str(name or described.get("digest"))
