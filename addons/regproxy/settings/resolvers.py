"""The predecessor's `/etc/nginx/resolvers.conf`: which name servers upstreams are looked up at.

Users of the predecessor mount this file to name their servers or to turn IPv6 off. Of nginx's grammar (its manual,
`resolver`) the addresses and `ipv6=off` count. `valid=` has no effect: names are looked up for each connection.
"""

import ipaddress
import re
from dataclasses import dataclass

_COMMENT = re.compile(r"#[^\n]*")
_DNS_PORT = 53
_ADDRESS = re.compile(r"\[(?P<v6>[^\[\]]+)\](?::(?P<v6_port>[0-9]+))?|(?P<v4>[0-9.]+)(?::(?P<v4_port>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Resolvers:
    """What the file says."""

    nameservers: tuple[str, ...] = ()
    """IP addresses without brackets; empty means the system's."""
    ipv4_only: bool = False
    problems: tuple[str, ...] = ()
    """One for each word that cannot be used, without the file's name."""


def parse_resolvers(text: str) -> Resolvers:
    """Read the statements of the file; what cannot be used is told in `problems`."""
    nameservers: list[str] = []
    problems: list[str] = []
    ipv4_only = False
    statements = (statement.split() for statement in _COMMENT.sub("", text).split(";"))
    words = [word for name, *words in filter(None, statements) if name == "resolver" for word in words]
    for number, word in enumerate(words, start=1):
        if "=" in word:
            ipv4_only = ipv4_only or word == "ipv6=off"
            continue
        try:
            nameservers.append(_parse_address(word))
        except ValueError as error:
            problems.append(f"word {number} of resolver is left out: {error}")
    return Resolvers(tuple(dict.fromkeys(nameservers)), ipv4_only, tuple(problems))


def _parse_address(word: str) -> str:
    match = _ADDRESS.fullmatch(word)
    if match is None:
        raise ValueError("not an IP address")
    if int(match["v4_port"] or match["v6_port"] or _DNS_PORT) != _DNS_PORT:
        raise ValueError(f"name servers are asked at port {_DNS_PORT} only")
    return str(ipaddress.ip_address(match["v4"] or match["v6"]))
