"""What a registry demands in `WWW-Authenticate`.

RFC 9110 section 11.6.1 and 11.2: several challenges in one field, several fields, quoted commas, quoted pairs. A field
is untrusted text, so nothing here raises: what cannot be read is skipped, and what was read before it stays.

Which challenge is answered, and whether its realm may be asked, is not decided here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge, `Bearer realm="...",service="..."` or `Basic realm="..."`."""

    scheme: str
    """Authentication scheme, in lower case."""

    params: Mapping[str, str]
    """Parameters by lower-case name, unquoted; the first of a repeated name. A token68 is not kept."""


# Challenges of registries are under 1 KiB; most servers limit all header fields together to 8 KiB.
_MAX_HEADER_CHARACTERS = 8192

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  RFC 9110 section 5.6.2, not a password
_SEPARATORS = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
# Deviation: an unquoted value may hold more than a token, because servers write realms and scopes without quotes.
_PARAM = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=][^\s,"]*))(?=[ \t,]|$)', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_UNREADABLE = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^,"])+', re.DOTALL)


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """Return the challenges of all `WWW-Authenticate` fields, in order; an empty list when none can be read."""
    return [challenge for header in headers for challenge in _parse(header[:_MAX_HEADER_CHARACTERS])]


def _parse(header: str) -> Iterator[Challenge]:
    position = _skip(_SEPARATORS, header, 0)
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            # One of the two takes any character, so each turn moves on.
            position = _skip(_SEPARATORS, header, _skip(_UNREADABLE, header, position))
            continue
        position = _skip(_TOKEN68, header, scheme.end())
        params, position = _parse_params(header, _skip(_SEPARATORS, header, position))
        yield Challenge(scheme[1].lower(), params)


def _parse_params(header: str, position: int) -> tuple[dict[str, str], int]:
    """Read `name=value` pairs until something else comes, which is the next challenge or garbage."""
    params: dict[str, str] = {}
    while match := _PARAM.match(header, position):
        quoted, unquoted = match[2], match[3]
        value = unquoted if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
        params.setdefault(match[1].lower(), value)
        position = _skip(_SEPARATORS, header, match.end())
    return params, position


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
