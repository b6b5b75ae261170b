"""Tells what became of a tag: one line in the log, one change in its history, and a count.

Only what a registry itself has answered counts; the store knows what was seen before (`store.tag_history`).
"""

import logging
import time

from regproxy.stack.core import Core
from regproxy.stack.manifest_answers import Wanted
from regproxy.store.errors import StoreError
from regproxy.store.records import TagRecord
from regproxy.store.tag_history import ChangeKind, TagChange, TagEvent

logger = logging.getLogger(__name__)


class TagChanges:
    """For the caches, which see them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def seen(self, wanted: Wanted, before: TagRecord | None, now: TagRecord) -> None:
        """Compare what a tag means now with what it meant for the same kind of client."""
        after = now.descriptor
        if before is None:
            await self._note(wanted, TagChange(now.checked_at_s, ChangeKind.BACK, None, after.digest, after.media_type))
        elif before.descriptor.digest != after.digest:
            change = TagChange(
                now.checked_at_s, ChangeKind.MOVED, before.descriptor.digest, after.digest, after.media_type
            )
            await self._note(wanted, change, before.checked_at_s)

    async def vanished(self, wanted: Wanted) -> None:
        """Note a 404 for a tag, if it was there before: to be called before the tag is forgotten."""
        store, key = self._core.store, wanted.tag_key
        try:
            records = await store.tag_records(key.registry, key.name, key.tag)
        except StoreError as error:
            self._core.store_failed(error)
            return
        if records:
            last = records[0]
            change = TagChange(
                time.time(), ChangeKind.VANISHED, last.descriptor.digest, None, last.descriptor.media_type
            )
            await self._note(wanted, change, last.checked_at_s)

    async def _note(self, wanted: Wanted, change: TagChange, known_at_s: float = 0.0) -> None:
        key = wanted.tag_key
        try:
            is_news = await self._core.store.note_tag_change(
                TagEvent(key.registry, key.name, key.tag, change), known_at_s
            )
        except StoreError as error:
            self._core.store_failed(error)
            return
        if is_news:
            _say(f"{key.registry}/{key.name}:{key.tag}", change)


def _say(tag: str, change: TagChange) -> None:
    match change.kind:
        case ChangeKind.MOVED:
            logger.info("tag moved: %s from %s to %s", tag, change.before, change.after)
        case ChangeKind.VANISHED:
            logger.warning("tag vanished: %s was %s, the registry does not have it any more", tag, change.before)
        case ChangeKind.BACK:
            logger.info("tag is back: %s is %s", tag, change.after)
