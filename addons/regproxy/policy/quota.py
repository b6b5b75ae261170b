"""What a registry's answers say of how often it may be asked, and what a low quota means.

`Retry-After` is RFC 9110 section 10.2.3. Quotas are told in three families of fields: Docker Hub's, which is the third
draft of "RateLimit header fields for HTTP" (`ratelimit-limit: 100;w=21600`, `ratelimit-remaining`), the later drafts'
one field `RateLimit` with `RateLimit-Policy`, and the older `X-RateLimit-Limit`, `-Remaining`, `-Reset` (spec
upstreams 3.1).

Texts are untrusted: what cannot be read says nothing. The time comes from the caller, in seconds of the Unix clock.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

LOW = 0.1
"""Below this part of the limit a quota is low (spec wishes, rank 2)."""

RECOVERED = 0.2
"""From this part on a low quota has recovered: one that swings about `LOW` is not told again and again."""

LONGEST_RETRY_AFTER_S = 3600.0
"""No registry is left alone for longer, whatever it says: Docker Hub once sent a date where seconds were meant
(docker/hub-feedback issue 2459)."""

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
"""What a 429 without `Retry-After` costs: a second, doubled each time, at most what Docker Hub tells in its own."""

UNKNOWN_WINDOW_S = 60.0
"""How long a quota without a window is believed: such are counted by the second or the minute."""

LONGEST_WINDOW_S = 24 * 3600.0

_UNIX_TIMES_FROM = 1_000_000_000
"""A number of seconds from here on is a moment: GitHub, GitLab and Docker Hub send those."""

_FIRST_NUMBER = re.compile(r"\s*([0-9]{1,12})\s*(?:[;,].*)?")


def _parameter(names: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[;,\s])(?:{names})\s*=\s*([0-9]{{1,12}})(?![0-9])")


_REMAINING, _LIMIT, _RESET, _WINDOW = map(_parameter, ("r|remaining", "q|limit", "t|reset", "w"))


@dataclass(frozen=True, slots=True)
class Quota:
    """What one answer said. Times are Unix times in seconds."""

    remaining: int
    limit: int | None
    window_s: float | None
    """Length of the time that the limit is for."""
    passes_at_s: float
    """When this says nothing any more: the quota has been filled up, or nobody knows."""
    seen_at_s: float
    source: str = ""
    """Whom Docker Hub counts (`docker-ratelimit-source`): an address, or an account's id."""

    @property
    def is_low(self) -> bool:
        """Whether less than a tenth is left."""
        return self.limit is not None and self.remaining < self.limit * LOW

    @property
    def has_recovered(self) -> bool:
        """Whether so much is left that another fall is worth a word."""
        return self.limit is None or self.remaining >= self.limit * RECOVERED

    @property
    def counts_pulls(self) -> bool:
        """Whether it is Docker Hub's, which counts GETs of manifests and no HEAD.

        By the field that only Docker Hub sends, so that its mirrors count, too.
        """
        return bool(self.source)

    def has_passed(self, now_s: float) -> bool:
        """Whether it says nothing any more. A clock that was set back is no reason to trust it for longer."""
        return not self.seen_at_s <= now_s < self.passes_at_s


type _Told = tuple[int, int | None, int | None, int | None]
"""Remaining, limit, window, reset."""


def spares(quota: Quota, method: str, now_s: float) -> bool:
    """Whether a request is left out that a stored answer can stand in for: the one rule for low quotas.

    While less than a tenth is left nothing that counts is asked, and what is free as always. So a tag that has moved
    keeps its old content here until the quota is no longer low; what is not stored is fetched as long as it can be.
    """
    if not quota.is_low or quota.has_passed(now_s):
        return False
    return not (quota.counts_pulls and method == "HEAD")


def parse_quota(fields: Mapping[str, str], now_s: float) -> Quota | None:
    """Return what an answer's fields (case-insensitive, or in lower case) say, None when they tell no remainder."""
    told = _early_draft(fields, "") or _later_draft(fields) or _early_draft(fields, "x-")
    if told is None:
        return None
    remaining, limit, window, reset = told
    window_s = None if window is None else min(float(window), LONGEST_WINDOW_S)
    ends_in_s = window_s or UNKNOWN_WINDOW_S
    if reset is not None:
        told_s = reset - now_s if reset >= _UNIX_TIMES_FROM else float(reset)
        ends_in_s = min(max(told_s, 0.0), LONGEST_WINDOW_S)
    source = fields.get("docker-ratelimit-source", "").strip()
    return Quota(remaining, limit, window_s, now_s + ends_in_s, now_s, source)


def _early_draft(fields: Mapping[str, str], prefix: str) -> _Told | None:
    remaining = _number(_FIRST_NUMBER, fields.get(f"{prefix}ratelimit-remaining", ""))
    if remaining is None:
        return None
    limit = fields.get(f"{prefix}ratelimit-limit", "")
    window_s = _found(_WINDOW, limit) or _found(_WINDOW, fields.get(f"{prefix}ratelimit-remaining", ""))
    reset = _number(_FIRST_NUMBER, fields.get(f"{prefix}ratelimit-reset", ""))
    return remaining, _number(_FIRST_NUMBER, limit), window_s, reset


def _later_draft(fields: Mapping[str, str]) -> _Told | None:
    told, policy = fields.get("ratelimit", ""), fields.get("ratelimit-policy", "")
    remaining = _found(_REMAINING, told)
    if remaining is None:
        return None
    limit = _found(_LIMIT, told)
    if limit is None:
        limit = _found(_LIMIT, policy)
    return remaining, limit, _found(_WINDOW, policy), _found(_RESET, told)


def _number(form: re.Pattern[str], text: str) -> int | None:
    match = form.fullmatch(text)
    return None if match is None else int(match[1])


def _found(form: re.Pattern[str], text: str) -> int | None:
    match = form.search(text)
    return None if match is None else int(match[1])


def retry_after_s(fields: Mapping[str, str], now_s: float) -> float | None:
    """Return the seconds of a `Retry-After`, at most an hour; None when there is none.

    Seconds or a date, as RFC 9110 has it; a Unix time, as Docker Hub sends it, in `X-Retry-After` too.
    """
    text = (fields.get("Retry-After") or fields.get("X-Retry-After") or "").strip()
    wait_s: float | None = None
    if re.fullmatch(r"[0-9]{1,12}", text):
        wait_s = int(text) - now_s if int(text) >= _UNIX_TIMES_FROM else float(text)
    else:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            wait_s = parsedate_to_datetime(text).timestamp() - now_s
    return None if wait_s is None else min(max(0.0, wait_s), LONGEST_RETRY_AFTER_S)


def backoff_s(refusals: int) -> float:
    """Return how long to wait after so many 429 in a row (1 for the first) that do not say how long."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(refusals - 1, 16))
