"""Which redirects the proxy follows, and what it tells the host it is sent to.

RFC 9110 section 15.4, and the OCI distribution-spec's rule that clients "MUST NOT forward authorization headers" to
another host. A registry's `Location` is untrusted input: it may point into our own network, at another scheme, or carry
a user name. The text of a signed URL is kept as it is, because its signature covers it.

Whether the host's addresses may be connected to is decided in `regproxy.policy.addresses`, after resolution.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import quote, urljoin, urlsplit

from regproxy.oci.names import parse_authority
from regproxy.oci.wording import shown

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
"""The statuses whose `Location` is followed; all repeat a GET or HEAD unchanged."""

MAX_HOPS = 10
"""curl allows 50 and browsers 20; no registry is known to need more than 2."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_CROSS_ORIGIN_FIELDS = frozenset({"range", "if-range", "accept", "user-agent"})
# Of the connection (RFC 9110 section 7.6.1), of the client, or set anew for each hop.
_NEVER_FORWARDED = frozenset(
    {
        "accept-encoding",
        "connection",
        "cookie",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Backslash: browsers read it as a slash, servers do not, so a host may differ between the check and the connect.
_REFUSED_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\]")
_URL_TEXT = re.compile(r"[\x21-\x5b\x5d-\x7e]*")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PRINTABLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))


class RedirectRefused(ValueError):  # noqa: N818  a refusal is a verdict, and the name says which
    """A redirect is not followed. The message has no query, for signatures are secrets."""


@dataclass(frozen=True, slots=True, repr=False)
class Url:
    """An absolute http or https URL without user name and fragment. Its repr leaves out the query, its str does not."""

    scheme: Literal["http", "https"]

    host: str
    """Normalised host name or IP address, without brackets."""

    port: int
    """Always set; the scheme's own when the URL names none."""

    target: str
    """Path and query, exactly as written, starting with a slash."""

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"

    def __repr__(self) -> str:
        path, question_mark, _ = self.target.partition("?")
        return f"Url({self.origin}{path}{question_mark and '?...'})"

    @property
    def origin(self) -> str:
        """Scheme, host and port, the port left out when it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"{self.scheme}://{host}"
            if self.port == _DEFAULT_PORTS[self.scheme]
            else f"{self.scheme}://{host}:{self.port}"
        )

    @property
    def authority(self) -> str:
        """Host and port, the port left out when it is the scheme's own: what users call a registry."""
        return self.origin.partition("://")[2]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an absolute URL; ValueError, without the query in its message, when it is not one we may ask for."""
        without_query = shown(re.split(r"[?#]", text, maxsplit=1)[0])
        if _URL_TEXT.fullmatch(text) is None:
            raise ValueError(f"URL {without_query} has a backslash, a space, control or non-ASCII characters")
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise ValueError(f"URL {without_query} is malformed") from error
        # A user name, and so a password, is never repeated in a message.
        if "@" in parts.netloc:
            raise ValueError("a URL with a user name is not followed")
        scheme: Literal["http", "https"]
        match parts.scheme:
            case "http" | "https" as scheme:
                host, port = parse_authority(parts.netloc)
            case _:
                raise ValueError(f"URL {without_query} is neither http nor https")
        target = text.partition("://")[2][len(parts.netloc) :].partition("#")[0]
        if not target.startswith("/"):
            target = f"/{target}"
        return cls(scheme, host, _DEFAULT_PORTS[scheme] if port is None else port, target)


def next_hop(current_url: Url, location: str, hops: int, *, registry_insecure: bool) -> Url:
    """Return where a redirect from `current_url` leads, or raise RedirectRefused.

    `hops` counts the redirects that were followed before this one. `registry_insecure`: the registry itself is spoken
    to over plain http, so that a step from https to http gives nothing away.
    """
    if hops >= MAX_HOPS:
        raise RedirectRefused(f"more than {MAX_HOPS} redirects, the last one from {current_url!r}")
    try:
        url = Url.parse(_resolve(current_url, location))
    except ValueError as error:
        raise RedirectRefused(f"redirect from {current_url!r} is refused: {error}") from error
    if current_url.scheme == "https" and url.scheme == "http" and not registry_insecure:
        raise RedirectRefused(f"redirect from {current_url!r} to plain http {url!r} is refused")
    return url


def is_refused_by_storage(status: int, url: Url, registry_url: Url) -> bool:
    """Whether a redirect led to storage that does not take its signature: signed URLs are good for minutes.

    What the registry itself refuses is its decision.
    """
    return status == 403 and not same_origin(url, registry_url)


def same_origin(first: Url, second: Url) -> bool:
    """Whether credentials for one URL may be sent to the other: same scheme, host and port (RFC 6454 section 4)."""
    return (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port)


def headers_for_hop(request_headers: Iterable[tuple[str, str]], *, same_origin: bool) -> list[tuple[str, str]]:
    """Return the fields to send after a redirect, always with `Accept-Encoding: identity`.

    On the same origin everything of the request but its connection's own fields and cookies; on another only what
    storage needs to choose and cut the content.
    """
    kept = [
        (field, value)
        for field, value in request_headers
        if (field.lower() not in _NEVER_FORWARDED if same_origin else field.lower() in _CROSS_ORIGIN_FIELDS)
    ]
    # Encoded content would not hash to its digest.
    return [*kept, ("Accept-Encoding", "identity")]


def _resolve(current_url: Url, location: str) -> str:
    """Make a `Location` absolute (RFC 3986 section 5) without rewriting one that already is."""
    if not location or _REFUSED_CHARACTER.search(location):
        raise ValueError("its Location is empty or has a backslash or control characters")
    # Some storage sends raw UTF-8 or spaces in file names; everything that is printable ASCII stays untouched.
    escaped = quote(location, safe=_PRINTABLE_ASCII, encoding="utf-8", errors="surrogateescape")
    if _ABSOLUTE.match(escaped):
        return escaped
    if escaped.startswith("//"):
        return f"{current_url.scheme}:{escaped}"
    return urljoin(str(current_url), escaped)
