"""Pins: what an operator wants to keep, as rows of the index, and what follows from them for eviction.

A pin names its content by digest, so that the index thread can spare it without reading a manifest. Who pins finds the
digests, and renews them when a tag moves (`Inventory.put_pin`).
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from regproxy.oci.digest import Digest
from regproxy.store.records import CONTENT_PREFIX, TAG_PREFIX, content_key

_logger = logging.getLogger(__name__)

PIN_PREFIX = "pin:"


@dataclass(frozen=True, slots=True)
class Pin:
    """One thing that stays."""

    target: str
    """As the operator means it, in normal form: `registry/name:tag`, `registry/name`, a digest."""
    pinned_at_s: float
    """Unix time, seconds."""
    digests: frozenset[Digest] = frozenset()
    """All content that belongs to it, stored or not."""
    tags: frozenset[str] = frozenset()
    """The index keys of its tag records, up to and with the bar."""

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{PIN_PREFIX}{self.target}"

    def to_json(self) -> str:
        """Return the text form; `from_json` reads it back."""
        fields = {
            "target": self.target,
            "pinned_at_s": self.pinned_at_s,
            "digests": sorted(map(str, self.digests)),
            "tags": sorted(self.tags),
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form; ValueError when it is anything else."""
        try:
            fields = json.loads(text)
            digests = frozenset(Digest.parse(digest) for digest in fields["digests"])
            tags = frozenset(str(tag) for tag in fields["tags"])
            return cls(str(fields["target"]), float(fields["pinned_at_s"]), digests, tags)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a pin: {text[:80]!r}") from error


def read_pins(texts: Iterable[str]) -> list[Pin]:
    """Return the pins that can be read; others are said and passed over, for they must not keep the store closed."""
    pins = []
    for text in texts:
        try:
            pins.append(Pin.from_json(text))
        except ValueError as error:
            _logger.warning("a pin has no effect: %s", error)
    return pins


@dataclass(frozen=True, slots=True)
class Spared:
    """The index keys that eviction passes over."""

    contents: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    @classmethod
    def by(cls, pins: Iterable[Pin]) -> Self:
        """Return what these pins keep."""
        known = list(pins)
        return cls(
            frozenset(content_key(digest) for pin in known for digest in pin.digests),
            frozenset(tag for pin in known for tag in pin.tags),
        )

    def __contains__(self, key: str) -> bool:
        if key.startswith(CONTENT_PREFIX):
            return key in self.contents
        return key.startswith(PIN_PREFIX) or (key.startswith(TAG_PREFIX) and f"{key.partition('|')[0]}|" in self.tags)
