"""Export: what an image consists of, so that a client can fetch it from the store piece by piece.

Not the registry but the store is asked: what is not there is named. With an image goes what is known to be about it:
manifests of its repository whose `subject` it is, and the tags that cosign derives from its digest.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from regproxy.oci.digest import Digest
from regproxy.oci.references import is_wanted, platforms, references, subject
from regproxy.policy.targets import Target
from regproxy.stack.admin.images import Image, Stock, take_stock
from regproxy.stack.admin.queries import COUNT, NUMBER, TEXT, Json, RequestError, Schema, array, nullable, record
from regproxy.store.content import Store
from regproxy.store.hot import StoredManifest

EXPORTED: Schema = record(
    images=array(
        record(
            image=TEXT,
            digest=TEXT,
            media_type=TEXT,
            size_bytes=COUNT,
            checked_at_s=nullable(NUMBER),
            referrer={"type": "boolean"},
        )
    ),
    contents=array(record(digest=TEXT, size_bytes=COUNT)),
    missing=array(record(image=TEXT, digest=nullable(TEXT), reason=TEXT)),
)
"""`images`: what an index of a layout names; `checked_at_s`: Unix time when the registry last confirmed the tag."""

_COSIGN_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]+)(?:\.[a-z]+)?")


@dataclass(slots=True)
class _Export:
    """What is collected, each content once, in the order in which it is needed."""

    store: Store
    wanted: frozenset[str]
    """Platforms; empty for those that are stored."""
    images: list[Json] = field(default_factory=list)
    sizes_bytes: dict[Digest, int] = field(default_factory=dict)
    missing: list[tuple[Digest, str]] = field(default_factory=list)

    async def collect(self, digest: Digest) -> StoredManifest | None:
        """Take a manifest and all that it names; None when it is not stored."""
        manifest = await self.store.manifest(digest)
        if manifest is None:
            self.missing.append((digest, "the manifest is not stored"))
            return None
        self.sizes_bytes[digest] = len(manifest.body)
        named = references(manifest.body)
        for platform_digest in self._chosen(digest, manifest.body):
            await self.collect(platform_digest)
        for blob in named.blobs:
            stored = self.store.open_content(blob)
            if stored is None:
                self.missing.append((blob, "the blob is not stored"))
                continue
            with stored:
                self.sizes_bytes[blob] = stored.size_bytes
        return manifest

    def _chosen(self, index: Digest, body: bytes) -> list[Digest]:
        named, found = references(body).manifests, platforms(body)
        if self.wanted:
            chosen = [digest for digest in named if is_wanted(found.get(digest, ""), self.wanted)]
        else:
            chosen = [digest for digest in named if self.store.holds(digest)]
        if named and not chosen:
            which = f"none of {', '.join(sorted(self.wanted))}" if self.wanted else "no platform of it"
            there = ", ".join(sorted(set(found.values())))
            self.missing.append(
                (index, f"{which} is stored; it has {there}" if not self.wanted else f"{which} is in it, but {there}")
            )
        return chosen

    def add(
        self, name: str, digest: Digest, manifest: StoredManifest, checked_at_s: float | None, *, referrer: bool
    ) -> None:
        """Name what was collected in the index."""
        self.images.append(
            {
                "image": name,
                "digest": str(digest),
                "media_type": manifest.media_type,
                "size_bytes": len(manifest.body),
                "checked_at_s": checked_at_s,
                "referrer": referrer,
            }
        )


async def describe_export(store: Store, target: Target, wanted: str) -> Json:
    """Describe what is to be fetched for a target, and what is missing. Raises RequestError, StoreError."""
    if target.name is None:
        raise RequestError(400, f"{target} is no image: name a repository, or one tag or digest of it")
    stock = await take_stock(store, only=[target])
    export = _Export(store, frozenset(each.strip() for each in wanted.split(",") if each.strip()))
    lacking: list[Json] = []
    roots = list(_roots(stock, target))
    for name, image in roots:
        manifest = await export.collect(image.digest)
        if manifest is not None:
            export.add(name, image.digest, manifest, image.checked_at_s, referrer=False)
        lacking += [{"image": name, "digest": str(digest), "reason": why} for digest, why in export.missing]
        export.missing.clear()
    if not roots:
        lacking.append({"image": str(target), "digest": None, "reason": "nothing of it is stored"})
    elif not lacking:
        await _add_referrers(export, stock, target)
    contents: list[Json] = [{"digest": str(digest), "size_bytes": size} for digest, size in export.sizes_bytes.items()]
    return {"images": export.images, "contents": contents, "missing": lacking}


def _roots(stock: Stock, target: Target) -> Iterator[tuple[str, Image]]:
    """Give the images that are meant, one for each name: of a tag's records the last one whose manifest is there."""
    meant = [image for image in stock.images if image.is_meant_by(target)]
    if isinstance(target.reference, Digest):
        yield from ((str(target), image) for image in meant[:1])
        return
    by_name: dict[str, Image] = {}
    for image in sorted(meant, key=lambda each: (each.digest in stock.contents, each.checked_at_s or -math.inf)):
        by_name[image.text] = image
    yield from by_name.items()


async def _add_referrers(export: _Export, stock: Stock, target: Target) -> None:
    """Add what is known to be about what is there, if it is complete: also what is about that."""
    named = {str(image["image"]) for image in export.images if isinstance(image, dict)}
    sources = [each for each in stock.sources if (each.registry, each.name) == (target.registry, target.name)]
    tags = [each for each in stock.images if (each.registry, each.name) == (target.registry, target.name) and each.tag]
    found = True
    while found:
        found = False
        for image in tags:
            about = _COSIGN_TAG.fullmatch(image.tag or "")
            if about and image.text not in named and any(each.hex == about[2] for each in export.sizes_bytes):
                named.add(image.text)
                found |= await _add_whole(export, image.text, image.digest, image.checked_at_s)
        for source in sources:
            manifest = await export.store.manifest(source.digest) if source.digest not in export.sizes_bytes else None
            if manifest is not None and subject(manifest.body) in export.sizes_bytes:
                found |= await _add_whole(
                    export, f"{target.registry}/{target.name}@{source.digest}", source.digest, None
                )


async def _add_whole(export: _Export, name: str, digest: Digest, checked_at_s: float | None) -> bool:
    part = _Export(export.store, frozenset())
    manifest = await part.collect(digest)
    if manifest is None or part.missing:
        return False
    export.sizes_bytes |= part.sizes_bytes
    export.add(name, digest, manifest, checked_at_s, referrer=True)
    return True
