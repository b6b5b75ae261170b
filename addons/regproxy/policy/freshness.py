"""When a stored tag may be served without asking upstream, and when in spite of upstream.

Words of RFC 9111 (fresh, stale) and RFC 5861 (stale-if-error). Content by digest is always fresh and
not asked about.

The time comes from the caller; no request is made here.
"""

from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """No answer: name resolution, connect or TLS failed, or the connection broke before a status came."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer in time."""


@dataclass(frozen=True, slots=True)
class Status:
    """An answer that is not the manifest that was asked for."""

    code: int
    """HTTP status."""


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Upstream is not asked: the operator has set OFFLINE."""


type UpstreamFailure = ConnectionFailed | TimedOut | Status | NotAsked


def is_fresh(checked_at_s: float, lifetime_s: float, now_s: float) -> bool:
    """Whether a tag that was checked with upstream at `checked_at_s` needs no new check yet (all in seconds)."""
    # A check in the future means that the clock was set back: its age is unknown, so ask again.
    return 0 <= now_s - checked_at_s < lifetime_s


def stale_allowed(failure: UpstreamFailure) -> bool:
    """Whether the last good answer may stand in for the one that upstream failed to give.

    Only for failures of upstream itself. 401, 403 and 404 are decisions: an image that was deleted or closed must not
    live on here.
    """
    match failure:
        case ConnectionFailed() | TimedOut() | NotAsked():
            return True
        case Status(code=408 | 429):
            return True
        case Status(code=code):
            return 500 <= code <= 599
        case _:
            assert_never(failure)
