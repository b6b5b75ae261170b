"""Pins: what stays whatever the cap says, and the look that keeps them up to date when tags move."""

import asyncio
import dataclasses
import logging
import time

from regproxy.oci.digest import Digest
from regproxy.policy.targets import Target
from regproxy.stack.admin.images import Stock, age_s, take_stock
from regproxy.stack.admin.queries import COUNT, NUMBER, TEXT, Json, RequestError, Schema, array, record
from regproxy.stack.core import Core
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.inventory import tag_prefix_of
from regproxy.store.pins import Pin

logger = logging.getLogger(__name__)

RENEWAL_INTERVAL_S = 30.0
"""How late a pin may be about a tag that moved. What was pulled since then is the last to be evicted anyhow."""

PIN: Schema = record(target=TEXT, age_s=NUMBER, contents=COUNT, stored=COUNT, size_bytes=COUNT)
"""`contents`: how much belongs to it, as far as its manifests are known; `stored`: how much of that is there."""

PINS: Schema = record(pins=array(PIN))


async def list_pins(store: Store) -> Json:
    """Describe all pins."""
    stock = await take_stock(store)
    return {"pins": [_described(pin, stock) for pin in stock.pins]}


async def pin(store: Store, target: Target) -> Json:
    """Pin what is meant, also before it is there; pinning twice is the same as once."""
    stock = await take_stock(store, only=[target])
    known = next((each for each in stock.pins if each.target == str(target)), None)
    made = renewed(known or Pin(str(target), time.time()), stock)
    await store.inventory.put_pin(made)
    return _described(made, stock)


async def unpin(store: Store, target: Target) -> Json:
    """Let go. Raises RequestError when there is no such pin."""
    pins = await store.inventory.pins()
    if str(target) not in {each.target for each in pins}:
        raise RequestError(404, f"{target} is not pinned; pinned are: {', '.join(each.target for each in pins) or '-'}")
    await store.inventory.drop_pin(str(target))
    return await list_pins(store)


def renewed(pin: Pin, stock: Stock) -> Pin:
    """Return the pin with all that belongs to it now."""
    target = Target.parse(pin.target)
    images = [image for image in stock.images if image.is_meant_by(target)]
    digests = frozenset[Digest]().union(*(stock.of(image) for image in images))
    if target.registry is None and isinstance(target.reference, Digest):
        digests |= {target.reference}
    tags = frozenset(
        tag_prefix_of(tag)
        for tag in stock.tags
        if target.selects(tag.registry, tag.name, tag.tag)
        or target.selects(tag.registry, tag.name, str(tag.record.descriptor.digest))
    )
    return dataclasses.replace(pin, digests=digests, tags=tags)


async def renew(store: Store) -> None:
    """Bring all pins up to date. Raises StoreError."""
    pins = await store.inventory.pins()
    if not pins:
        return
    stock = await take_stock(store, only=[Target.parse(each.target) for each in pins])
    for each in stock.pins:
        now = renewed(each, stock)
        if now != each:
            await store.inventory.put_pin(now)


async def keep_renewing(core: Core, interval_s: float = RENEWAL_INTERVAL_S) -> None:
    """Renew the pins until the store is closed; one worker does."""
    await core.desk.until_here()
    while True:
        await asyncio.sleep(interval_s)
        if not core.ready or not core.store.is_open:
            return
        try:
            await renew(core.store)
        except StoreError as error:
            logger.warning("pins are not up to date: %s", error)


def _described(pin: Pin, stock: Stock) -> dict[str, Json]:
    stored = pin.digests & stock.contents.keys()
    return {
        "target": pin.target,
        "age_s": age_s(pin.pinned_at_s, time.time()),
        "contents": len(pin.digests),
        "stored": len(stored),
        "size_bytes": stock.size_bytes(stored),
    }
