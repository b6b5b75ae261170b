"""Which requests are trouble that an operator should see, and what each is in words that name nobody.

The exact reason of a request may name an image or a client; these words do not, so everybody may read them.
"""

from collections.abc import Mapping
from types import MappingProxyType

_WORDS: Mapping[int, str] = MappingProxyType(
    {
        403: "the registry or this proxy refuses it",
        429: "the registry's limit is reached, and nothing stored could be the answer",
        502: "the registry gave no usable answer, and nothing stored could be the answer",
        503: "it cannot be had now: trying again may help",
        504: "the registry was not asked or did not answer in time, and nothing stored could be the answer",
    }
)


def is_trouble(status: int | None, reason: str) -> bool:
    """Whether a request to a registry went wrong; `reason` is what the proxy knows of it, empty for nothing.

    A 401 is how a login begins, and a 404 how clients look for signatures.
    """
    if status in (401, 404):
        return False
    return bool(reason) or status is None or status >= 500 or status in (403, 429)


def in_words(status: int | None, *, is_stale: bool) -> str:
    """Return what went wrong, as far as the answer's status tells."""
    if is_stale:
        return "the registry gave no usable answer: the last good copy was served"
    if status is None:
        return "the connection ended before there was an answer"
    if status < 400:
        return "the answer was cut short, or the cache had no part in it"
    return _WORDS.get(status, f"the answer was {status}")
