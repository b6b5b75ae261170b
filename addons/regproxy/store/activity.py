"""What the store has done since it was opened, in numbers that only grow: for metrics and for who looks on."""

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum

from regproxy.oci.digest import Digest
from regproxy.store.tag_history import TagEvent

KEPT_INGESTS = 1000
"""Ended ingests that nobody has taken yet; a reader comes every few seconds."""

KEPT_TAG_EVENTS = 200

MOST_REGISTRIES = 200
"""Wildcards could otherwise let clients fill the memory with names; the rest is counted as `other`."""


class Outcome(StrEnum):
    """How an ingest ended."""

    STORED = "stored"
    NOT_STORED = "not_stored"
    """Whole and right, but there was no place for it."""
    WRONG_DIGEST = "wrong_digest"
    FAILED = "failed"


class Reason(StrEnum):
    """Why something left the store."""

    ROOM = "room"
    """The least recently used made room: under the cap, or for others on the disk."""
    UNUSED = "unused"
    """Nobody had read it for CACHE_INACTIVE."""
    PURGED = "purged"
    """An operator wanted it to go."""
    PARTIAL = "partial"
    """A download that nobody went on with."""


@dataclass(frozen=True, slots=True)
class EndedIngest:
    """One ingest, over."""

    digest: Digest
    outcome: Outcome
    written_bytes: int
    """That arrived from upstream, without what an earlier ingest left."""
    duration_s: float
    was_resumed: bool


@dataclass(slots=True)
class Activity:
    """Written by the event loop and the index thread, each its own fields; read by the event loop."""

    ended: deque[EndedIngest] = field(default_factory=lambda: deque(maxlen=KEPT_INGESTS))
    """The newest last."""
    evicted: Counter[Reason] = field(default_factory=Counter)
    """Contents and partial files."""
    evicted_bytes: Counter[Reason] = field(default_factory=Counter)

    tag_events: deque[TagEvent] = field(default_factory=lambda: deque(maxlen=KEPT_TAG_EVENTS))
    """What became of tags, the newest last; `Store.tag_history` has what was before."""
    tag_changes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """How often, by registry and kind of change."""

    def note_tag_event(self, event: TagEvent) -> None:
        """Keep what became of a tag."""
        self.tag_events.append(event)
        key = event.registry, event.change.kind.value
        known = key in self.tag_changes or len(self.tag_changes) < MOST_REGISTRIES
        self.tag_changes[key if known else ("other", event.change.kind.value)] += 1

    def note_evicted(self, reason: Reason, entries: int, freed_bytes: int) -> None:
        """Count what left."""
        self.evicted[reason] += entries
        self.evicted_bytes[reason] += freed_bytes
