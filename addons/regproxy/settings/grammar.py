"""Single values as the predecessor's users write them: times, sizes, booleans, ports, paths, lists, quoted text.

Times and sizes follow nginx: its manual, "Configuration file measurement units", and `ngx_parse_time` in its source.
Every parser returns the value or raises ValueError with a reason that does not repeat the text: the caller decides
whether the text may be shown.
"""

import re
from pathlib import Path

from regproxy.oci.names import parse_authority
from regproxy.policy.access import PrivateImages
from regproxy.policy.adoption import OldCache
from regproxy.policy.precedence import Precedence

_UNIT_S = {
    "years": 365 * 86400,
    "months": 30 * 86400,
    "weeks": 7 * 86400,
    "days": 86400,
    "hours": 3600,
    "minutes": 60,
    "seconds": 1,
}

# Each unit at most once, largest first; `m` is minutes and `M` months. A bare number is seconds, alone or last.
# 15 digits are 31 million years: more can only be a slip, and the bound keeps the arithmetic finite.
_DURATION = re.compile(
    r"""
    (?:(?P<years>[0-9]{1,15})y\ *)?
    (?:(?P<months>[0-9]{1,15})M\ *)?
    (?:(?P<weeks>[0-9]{1,15})w\ *)?
    (?:(?P<days>[0-9]{1,15})d\ *)?
    (?:(?P<hours>[0-9]{1,15})h\ *)?
    (?:(?P<minutes>[0-9]{1,15})m(?!s)\ *)?
    (?:(?P<seconds>[0-9]{1,15})(?:s|(?![0-9a-zA-Z]))\ *)?
    (?:(?P<milliseconds>[0-9]{1,15})ms)?
    """,
    re.VERBOSE,
)
_SIZE = re.compile(r"([0-9]{1,15})([kKmMgGtT]?)")
_SIZE_UNIT_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_HIGHEST_PORT = 65535
_LARGEST_COUNT = 64
_SHORTEST_TOKEN = 16


NONE = "none"
"""What turns a setting off whose absence means something else."""


def strip_quotes(text: str) -> str:
    """Return the text without surrounding blanks and without one pair of quotes around it.

    Container runtimes pass the quotes of an env_file on as part of the value.
    """
    stripped = text.strip()
    quote = stripped[:1]
    # A third quote means that more than one thing is quoted: "a" "b".
    if quote and quote in "\"'" and stripped.count(quote) == 2 and stripped.endswith(quote):
        return stripped[1:-1]
    return stripped


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a list that is separated by blanks, line ends or commas; each word may be quoted."""
    words = (strip_quotes(word) for word in re.split(r"[\s,]+", strip_quotes(text)))
    return tuple(word for word in words if word)


def parse_duration_s(text: str) -> float:
    """Return the seconds of an nginx time such as `1h30m`, `60d`, `500ms` or `90`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError("not a time such as 90, 30s, 1h30m or 60d (units from large to small: y M w d h m s ms)")
    numbers = {unit: int(number) for unit, number in match.groupdict(default="0").items()}
    return sum(numbers[unit] * length_s for unit, length_s in _UNIT_S.items()) + numbers["milliseconds"] / 1000


def parse_size_bytes(text: str) -> int:
    """Return the bytes of an nginx size such as `512k`, `100m` or `32g`; `t` is our addition."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size such as 1048576, 512k, 100m or 32g")
    return int(match[1]) * _SIZE_UNIT_BYTES[match[2].lower()]


def parse_port(text: str) -> int:
    """Return the TCP port."""
    stripped = text.strip()
    if not re.fullmatch(r"[0-9]{1,5}", stripped) or not 1 <= int(stripped) <= _HIGHEST_PORT:
        raise ValueError(f"not a port number (1-{_HIGHEST_PORT})")
    return int(stripped)


def parse_count(text: str) -> int:
    """Return a number from 1 to 64."""
    stripped = text.strip()
    if not re.fullmatch(r"[0-9]{1,2}", stripped) or not 1 <= int(stripped) <= _LARGEST_COUNT:
        raise ValueError(f"not a number from 1 to {_LARGEST_COUNT}")
    return int(stripped)


def parse_number(text: str) -> int:
    """Return a number from 0 to 999,999,999."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise ValueError("not a number from 0 to 999999999")
    return int(text.strip())


def parse_workers(text: str) -> int:
    """Return a number from 1 to 64, or 0 for `auto`."""
    if text.strip().lower() == "auto":
        return 0
    try:
        return parse_count(text)
    except ValueError as error:
        raise ValueError(f"{error}, nor auto") from None


def parse_old_cache(text: str) -> OldCache:
    """Return what becomes of a predecessor's cache."""
    try:
        return OldCache(text.strip().lower())
    except ValueError:
        raise ValueError(f"not one of {', '.join(OldCache)}") from None


def parse_precedence(text: str) -> Precedence:
    """Return whose credentials come first."""
    try:
        return Precedence(text.strip().lower())
    except ValueError:
        raise ValueError(f"not one of {', '.join(Precedence)}") from None


def parse_private_images(text: str) -> PrivateImages:
    """Return what becomes of content that only some clients may read."""
    try:
        return PrivateImages(text.strip().lower())
    except ValueError:
        raise ValueError(f"not one of {', '.join(PrivateImages)}") from None


def parse_path(text: str) -> Path:
    """Return the path as it was written, not resolved."""
    if not text or not text.isprintable():
        raise ValueError("not a path (empty or with a control character)")
    return Path(text)


def parse_listen_host(text: str) -> str:
    """Return the address without brackets; empty means all addresses."""
    host = text.strip().removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[0-9A-Za-z.:%_-]*", host):
        raise ValueError("not an address or host name")
    return host


def is_true(text: str) -> bool:
    """Return True for exactly `true`: the predecessors read every other text as false."""
    return text == "true"


def is_boolean(text: str) -> bool:
    """Return whether the text is one of the two words that were meant to be used."""
    return text in {"true", "false"}


def shown(text: str, limit: int = 80) -> str:
    """Return the text fit for one line of an error: control characters escaped, long texts cut."""
    printable = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return printable if len(printable) <= limit else f"{printable[:limit]}..."


def parse_token(text: str) -> str:
    """Return a token for an Authorization field; empty is none."""
    token = text.strip()
    if 0 < len(token) < _SHORTEST_TOKEN or not token.isascii() or any(character.isspace() for character in token):
        raise ValueError(f"not {_SHORTEST_TOKEN} or more ASCII characters without blanks")
    return token


def parse_default_registry(text: str) -> str:
    """Return `host` or `host:port` as it is written; empty for `none`."""
    if text == NONE:
        return ""
    parse_authority(text)
    return text
