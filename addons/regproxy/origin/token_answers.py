"""The answer of a token server: the distribution project's "Token Authentication Specification" and its OAuth2 form.

An answer is untrusted text: what is not a token raises ValueError without a word of it.
"""

import datetime as dt
import json
import re
from dataclasses import dataclass, field

DEFAULT_LIFETIME_S = 60.0
"""The specification's, for an answer without `expires_in`."""

MAX_LIFETIME_S = 24 * 3600.0
"""A token is asked anew once a day, whatever its server says."""

# RFC 6750 section 2.1 knows fewer characters (b64token); servers keep to neither. No blank, no control character.
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and how long it is good for."""

    token: str = field(repr=False)

    lifetime_s: float
    """From now on; more than 0."""


def parse_token_answer(body: bytes, now_s: float) -> IssuedToken:
    """Return the token of an answer that arrived at `now_s` (Unix time). Raises ValueError when there is none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("its answer is not JSON") from None
    if not isinstance(answer, dict):
        raise ValueError("its answer is not a JSON object")  # noqa: TRY004 - untrusted text, not a wrong call
    for key in ("token", "access_token"):
        token = answer.get(key)
        if isinstance(token, str) and _TOKEN.fullmatch(token):
            return IssuedToken(token, _lifetime_s(answer.get("expires_in"), answer.get("issued_at"), now_s))
    raise ValueError("there is no token in its answer")


def _lifetime_s(expires_in: object, issued_at: object, now_s: float) -> float:
    """Return how long a token is good for.

    A server may hand out a token that it made a while ago. Its clock is believed as long as that makes sense; when it
    says the token ends before it came, or is made in the future, the two clocks differ.
    """
    lifetime_s = DEFAULT_LIFETIME_S
    if isinstance(expires_in, int | float) and not isinstance(expires_in, bool) and expires_in > 0:
        lifetime_s = float(min(expires_in, MAX_LIFETIME_S))  # JSON knows integers that no float holds
    age_s = now_s - _unix_time(issued_at, now_s)
    return lifetime_s - age_s if 0 <= age_s < lifetime_s else lifetime_s


def _unix_time(issued_at: object, now_s: float) -> float:
    if not isinstance(issued_at, str):
        return now_s
    try:
        moment = dt.datetime.fromisoformat(issued_at)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return now_s
