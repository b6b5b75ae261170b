"""Request heads that leave nothing to interpret.

`warm_connection` answers those by itself. Every other head, however right it may be, is read by mitmproxy: two readers
that understand one request differently are how requests are smuggled, so this one understands only the plainest form
of RFC 9112 and says None to the rest.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from regproxy.oci.names import normalise_host, parse_authority

END_OF_HEAD = b"\r\n\r\n"

CONNECT_LIMIT_BYTES = 16 * 1024
"""A CONNECT head is a few hundred bytes; nginx allows 32 KiB of headers, Go's servers 1 MiB."""

_LONGEST_AUTHORITY = 260
"""A name of 253 characters (RFC 1035 section 2.3.4, without its lengths), a dot, a colon and a port."""

MAX_FIELDS = 100
"""Clients send about ten. Every look for a field passes all of them: 60,000 empty ones would take seconds."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# The blanks are taken for good (`*+`): tried in every way, 64 KiB of them would take some ten seconds.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([!-~](?:[ \t!-~]*[!-~])?+)?+[ \t]*+")
# RFC 3986 section 3.3 and 3.4: `pchar`, `/` and `?`. A fragment is none of a request's.
_READ = re.compile(rb"(GET|HEAD) (/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*) HTTP/1\.1")
_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9._-]+):([0-9]{1,5}) HTTP/1\.[01]")

_NOT_PLAIN = frozenset(
    {"content-length", "transfer-encoding", "expect", "upgrade", "trailer", "te", "proxy-authorization"}
)
"""Fields that announce more than a head, or that another part has to see."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A GET or HEAD without a body, in HTTP/1.1."""

    method: str
    target: str
    """Origin-form: path and query."""
    fields: tuple[tuple[str, str], ...]
    """Names in lower case, in the order they came."""

    def field(self, name: str) -> str | None:
        """Return the values of a field as one (RFC 9110 section 5.3), None when it is absent."""
        return ", ".join(self.values(name)) if any(each == name for each, _ in self.fields) else None

    def values(self, name: str) -> tuple[str, ...]:
        """Return all values of a field."""
        return tuple(value for each, value in self.fields if each == name)

    @property
    def is_last(self) -> bool:
        """Whether the client wants the connection closed after the answer."""
        return any(value.lower() == "close" for value in self.values("connection"))


def read_plain_head(head: bytes) -> RequestHead | None:
    """Read what stands before `END_OF_HEAD`; None unless it is a plain GET or HEAD with one Host."""
    start, *lines = head.split(b"\r\n")
    asked = _READ.fullmatch(start)
    fields = _plain_fields(lines)
    if asked is None or fields is None:
        return None
    names = [name for name, _ in fields]
    if names.count("host") != 1 or not _NOT_PLAIN.isdisjoint(names):
        return None
    read = RequestHead(asked[1].decode(), asked[2].decode(), fields)
    if _host_of(read.field("host") or "") is None:
        return None
    options = [value.lower() for value in read.values("connection")]
    return read if all(option in {"keep-alive", "close"} for option in options) else None


def read_plain_connect(head: bytes) -> tuple[str, int] | None:
    """Read normalised host and port of a CONNECT; None unless it is a plain one without a login.

    A Host that names another host is left to mitmproxy, whose way refuses it.
    """
    start, *lines = head.split(b"\r\n")
    asked = _CONNECT.fullmatch(start) if len(head) <= CONNECT_LIMIT_BYTES else None
    fields = _plain_fields(lines)
    if asked is None or fields is None or not _NOT_PLAIN.isdisjoint(name for name, _ in fields):
        return None
    try:
        host, port = normalise_host(asked[1].decode()), int(asked[2])
    except ValueError:
        return None
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) > 1 or any(_host_of(value) != host for value in hosts):
        return None
    return (host, port) if 1 <= port <= 65535 else None


def _host_of(field: str) -> str | None:
    """Return the host that a Host field names, in normal form; None when it names none."""
    return _host_in(field) if len(field) <= _LONGEST_AUTHORITY else None


@lru_cache(maxsize=1024)
def _host_in(field: str) -> str | None:
    try:
        return parse_authority(field)[0]
    except ValueError:
        return None


def _plain_fields(lines: list[bytes]) -> tuple[tuple[str, str], ...] | None:
    if len(lines) > MAX_FIELDS:
        return None
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        fields.append((match[1].decode().lower(), (match[2] or b"").decode()))
    return tuple(fields)
