"""Purge: what an operator wants to be gone, at once."""

from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.policy.closure import removable
from regproxy.policy.targets import Target
from regproxy.shared.tier import SharedTier
from regproxy.stack.admin.images import Image, Stock
from regproxy.stack.admin.queries import COUNT, FLAG, TEXT, Json, Schema, array, nullable, record
from regproxy.store.content import Store
from regproxy.store.records import tag_key_prefix

PURGED: Schema = record(
    dry_run=FLAG,
    images=array(TEXT),
    contents=array(TEXT),
    freed_bytes=COUNT,
    pinned=array(TEXT),
    shared_store=nullable(FLAG),
)
"""`pinned`: images that were meant and stay; `contents`: what goes, of all that the images lead to; `shared_store`:
whether it is gone from the bucket, too, null where that is left as it is."""


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What goes and what stays although it was meant."""

    images: tuple[Image, ...]
    contents: frozenset[Digest]
    pinned: tuple[Image, ...]


def plan_purge(stock: Stock, target: Target | None, unused_since_s: float | None) -> PurgePlan:
    """Find what is meant: by a target, by the time of its last use, or by both; blobs go with their last image.

    Without a target all content that nobody used since then is meant, of whatever image. A bare digest goes in any
    case, also if other images need it: the next pull brings it anew.
    """
    meant = [image for image in stock.images if _is_meant(image, stock, target, unused_since_s)]
    pinned = tuple(image for image in meant if _is_pinned(image, stock))
    going = tuple(image for image in meant if image not in pinned)
    pinned_digests = frozenset[Digest]().union(*(pin.digests for pin in stock.pins))
    roots = {image.digest for image in going}
    named = set[Digest]()
    if target is None and unused_since_s is not None:
        roots |= {row.digest for row in stock.contents.values() if row.used_at_s < unused_since_s}
    if target is not None and target.registry is None and isinstance(target.reference, Digest):
        row = stock.contents.get(target.reference)
        if row is not None and (unused_since_s is None or row.used_at_s < unused_since_s):
            named = {target.reference}
    staying = {image.digest for image in stock.images if image not in going}
    contents = removable(roots | named, stock.graph, staying, pinned_digests) | (named - pinned_digests)
    return PurgePlan(going, contents & stock.contents.keys(), pinned)


async def purge(store: Store, stock: Stock, plan: PurgePlan) -> None:
    """Do it. Raises StoreError. Names go first, so that nobody is led to content that has gone."""
    inventory = store.inventory
    for image in plan.images:
        if image.tag is not None:
            await store.forget_tag(image.registry, image.name, image.tag)
    gone = {(image.registry, image.name, image.digest) for image in plan.images}
    await inventory.forget_sources(
        source
        for source in stock.sources
        if source.digest in plan.contents or (source.registry, source.name, source.digest) in gone
    )
    names = {(image.registry, image.name, image.tag or str(image.digest)) for image in plan.images}
    await inventory.forget_pulls(
        pulled
        for pulled in await inventory.pulls()
        if (pulled.registry, pulled.name, pulled.reference) in names or pulled.digest in plan.contents
    )
    await inventory.remove(plan.contents)


async def purge_shared(shared: SharedTier, plan: PurgePlan, target: Target) -> bool:
    """Remove it from the bucket, too, or the next pull would bring it back from there; whether that was possible.

    A tag, or a digest, that is named goes there also if this proxy does not have it.
    """
    tags = {(image.registry, image.name, str(image.tag)) for image in plan.images if image.tag is not None}
    contents = set(plan.contents)
    if not plan.pinned:
        match target:
            case Target(reference=Digest() as digest):
                contents.add(digest)
            case Target(str() as registry, str() as name, str() as tag):
                tags.add((registry, name, tag))
            case _:
                pass
    return await shared.purge(tags, contents)


def described_purge(stock: Stock, plan: PurgePlan, *, dry_run: bool, shared: bool | None = None) -> dict[str, Json]:
    """Describe what goes; `shared` is whether it is gone from the bucket."""
    return {
        "dry_run": dry_run,
        "images": [image.text for image in plan.images],
        "contents": [*sorted(map(str, plan.contents))],
        "freed_bytes": stock.size_bytes(plan.contents),
        "pinned": [image.text for image in plan.pinned],
        "shared_store": shared,
    }


def _is_meant(image: Image, stock: Stock, target: Target | None, unused_since_s: float | None) -> bool:
    if target is not None and not image.is_meant_by(target):
        return False
    used_at_s = stock.used_at_s(image) or image.checked_at_s or 0.0
    return unused_since_s is None or used_at_s < unused_since_s


def _is_pinned(image: Image, stock: Stock) -> bool:
    records = tag_key_prefix(image.registry, image.name, image.tag or "")
    return stock.is_pinned(image.digest) or any(records in pin.tags for pin in stock.pins)
