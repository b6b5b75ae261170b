"""What of a request's head is refused, before anybody reads it.

mitmproxy's parser is generous: a bare LF ends a line, any blank parts the request line, a folded line is a value, a
control character a character. Every such kindness is a place where the registry behind us, or a cache before us, may
read another request than we do; and what we then do is a guess. So each head passes this one gate, which knows RFC 9112
and no kindness. No client of the field needs any: Go's HTTP client, which is in nearly all of them, cannot send what
is refused here.

`request_head` reads less still, and everything that it reads passes here (tests/unit/engine/test_strict_head.py).
"""

import re
from dataclasses import dataclass

from regproxy.engine.request_head import END_OF_HEAD, MAX_FIELDS
from regproxy.oci.names import parse_authority
from regproxy.oci.wording import shown

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Nothing but what is visible: a fragment is none of a request's (RFC 9112 section 3.2), and `\` is a `/` to some.
_START = re.compile(rb"([A-Z][A-Z-]{0,30}) ([!\"$-\[\]-~]+) HTTP/([0-9]\.[0-9])")
# The blanks are taken for good, as in `request_head`.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?+)?+[ \t]*+")
_ABSOLUTE = re.compile(r"https?://([^/?@]+)(?:/.*)?", re.IGNORECASE)
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")  # more would be an exabyte

ABOUT_THE_CONNECTION = frozenset({"keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings"})
"""What `Connection` may name: fields that are between the client and this proxy (RFC 9110 section 7.6.1)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a head is refused."""

    status: int
    reason: str
    """For the client; without what it sent, but for names."""


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    """Names in lower case."""

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]


def find_fault(head: bytes) -> Fault | None:
    """Return what is wrong with a head, None when nothing is; `head` reaches to the end of its empty line."""
    read = _read(head)
    if isinstance(read, Fault):
        return read
    for rule in (_fault_of_length, _fault_of_host, _fault_of_connection):
        reason = rule(read)
        if reason is not None:
            return Fault(400, reason)
    if any(value.lower() != "100-continue" for value in read.values("expect")):
        return Fault(417, "the proxy knows no Expect but 100-continue")
    if not all(value.isascii() for value in read.values("authorization") + read.values("proxy-authorization")):
        return Fault(400, "a login has characters that are not ASCII")
    return None


def named_by_connection(options: str) -> frozenset[str]:
    """Return what a `Connection` field names, in lower case."""
    return frozenset(option.strip(" \t").lower() for option in options.split(","))


def _read(head: bytes) -> _Head | Fault:
    if not head.endswith(END_OF_HEAD) or re.search(rb"[\r\n\0]", head.replace(b"\r\n", b"")):
        return Fault(400, "each line of a head ends with CR LF, and CR, LF and NUL are nowhere else in it")
    start, *lines = head.removesuffix(END_OF_HEAD).split(b"\r\n")
    asked = _START.fullmatch(start)
    if asked is None:
        return Fault(400, "the request line is not `method target HTTP/1.1` with one blank between each")
    version = asked[3].decode()
    if version not in ("1.0", "1.1"):
        return Fault(505, "this proxy speaks HTTP/1.1")
    if len(lines) > MAX_FIELDS:
        return Fault(431, f"the head has more than {MAX_FIELDS} fields")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return Fault(
                400, f"{shown(line[:40].decode('latin-1').partition(':')[0])} is not the start of a field line"
            )
        fields.append((field[1].decode().lower(), (field[2] or b"").decode("latin-1")))
    return _Head(asked[1].decode(), asked[2].decode(), version, tuple(fields))


def _fault_of_length(head: _Head) -> str | None:
    """Two readers that find the end of a body at different places are what smuggling needs (RFC 9112 section 6.3)."""
    lengths, codings = head.values("content-length"), head.values("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        return "the length of the body is said twice"
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        return "Content-Length is not a number"
    if codings and (codings[0].lower() != "chunked" or head.version == "1.0"):
        return "Transfer-Encoding is not chunked, or in HTTP/1.0"
    # An absolute-form GET may be for anybody, and its body is passed on; a registry, or this proxy, takes none.
    has_none = head.method == "CONNECT" or (head.method in ("GET", "HEAD") and head.target.startswith("/"))
    return f"a {head.method} has no body" if has_none and (codings or lengths not in ([], ["0"])) else None


def _fault_of_host(head: _Head) -> str | None:
    """One Host, and the same as the target's if that names one (RFC 9112 section 3.2)."""
    hosts = head.values("host")
    if len(hosts) > 1 or (not hosts and head.version == "1.1" and head.method != "CONNECT"):
        return "a request has one Host field"
    absolute = _ABSOLUTE.fullmatch(head.target)
    authority = head.target if head.method == "CONNECT" else (absolute and absolute[1])
    if not authority and not head.target.startswith("/"):
        return "the target is neither a path nor the URL of http or https"
    if head.method == "CONNECT" and re.search(r":[0-9]{1,5}$", head.target) is None:
        return "the target of a CONNECT is host and port"
    try:
        named = {parse_authority(text)[0] for text in (*hosts, *([authority] if authority else []))}
    except ValueError as error:
        return str(error)
    return "the Host field names another host than the target" if len(named) > 1 else None


def _fault_of_connection(head: _Head) -> str | None:
    """Fields that `Connection` names are taken off: none that decides about the answer may go so."""
    named = named_by_connection(",".join(head.values("connection")))
    taken = {name for name, _ in head.fields if name in named} - ABOUT_THE_CONNECTION - {"connection"}
    return f"Connection names the field {min(taken)}" if taken else None
