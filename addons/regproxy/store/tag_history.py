"""What became of a tag at its registry: it moved to another manifest, it vanished, it came back.

A few changes are kept for each tag, as text beside its records, and outlive them. What clients accept decides which
manifest a tag means for them, so two kinds of clients may see two moves of one tag, of two media types.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

from regproxy.oci.digest import Digest

KEPT_CHANGES = 20
"""For each tag, the newest; about 4 kB."""

HISTORY_PREFIX = "history:"


def history_key(registry: str, name: str, tag: str) -> str:
    """Return the index key of a tag's history."""
    return f"{HISTORY_PREFIX}{registry}/{name}:{tag}"


class ChangeKind(StrEnum):
    """What happened."""

    MOVED = "moved"
    VANISHED = "vanished"
    """The registry answers 404 for a tag that it had."""
    BACK = "back"
    """It has a tag again that had vanished."""


@dataclass(frozen=True, slots=True)
class TagChange:
    """One change, as it was noticed."""

    at_s: float
    """Unix time at which the proxy learnt of it, seconds."""
    kind: ChangeKind
    before: Digest | None
    """What the tag meant; None for one that is back."""
    after: Digest | None
    """What it means now; None for one that vanished."""
    media_type: str
    """Of the newer manifest that is known."""

    def is_news(self, history: "tuple[TagChange, ...]", known_at_s: float) -> bool:
        """Whether this is in no history yet. `known_at_s` is when whoever sees it now last saw the tag before it.

        A move is seen once by each kind of client; one that was noticed since then is the same one.
        """
        if self.kind is ChangeKind.BACK:
            return bool(history) and history[-1].kind is ChangeKind.VANISHED
        return not any(
            (known.kind, known.after) == (self.kind, self.after) and known.at_s > known_at_s for known in history
        )


@dataclass(frozen=True, slots=True)
class TagEvent:
    """A change of one tag."""

    registry: str
    """`host` or `host:port`."""
    name: str
    """Repository name."""
    tag: str
    change: TagChange


def history_to_json(history: tuple[TagChange, ...]) -> str:
    """Return the text form of the newest changes; `history_from_json` reads it back."""
    return json.dumps([_fields(change) for change in history[-KEPT_CHANGES:]], separators=(",", ":"))


def history_from_json(text: str) -> tuple[TagChange, ...]:
    """Read the text form, oldest first; ValueError when it is anything else."""
    try:
        return tuple(_change(fields) for fields in json.loads(text))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a tag's history: {text[:80]!r}") from error


def _fields(change: TagChange) -> dict[str, str | float | None]:
    return {
        "at_s": change.at_s,
        "kind": change.kind.value,
        "before": None if change.before is None else str(change.before),
        "after": None if change.after is None else str(change.after),
        "media_type": change.media_type,
    }


def _change(fields: dict[str, object]) -> TagChange:
    at_s, kind, media_type = fields["at_s"], fields["kind"], fields["media_type"]
    if not isinstance(at_s, int | float) or not isinstance(kind, str) or not isinstance(media_type, str):
        raise TypeError("a change has a time, a kind and a media type")
    before, after = (_digest(fields[name]) for name in ("before", "after"))
    return TagChange(float(at_s), ChangeKind(kind), before, after, media_type)


def _digest(text: object) -> Digest | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError("a digest is text")
    return Digest.parse(text)
