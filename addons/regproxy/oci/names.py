"""Names in the registry world: repository names, tags, and the registry they belong to.

Grammars: OCI distribution-spec 1.1, "Pulling manifests" (`<name>` and `<reference>`), and for a registry the
`host [":" port]` of RFC 3986 section 3.2, narrowed to host names and IP addresses. Internationalised names are compared
in the form that DNS and certificates have: `bücher.example` is `xn--bcher-kva.example` (RFC 5891).

No defaulting happens here: `ubuntu` does not become `library/ubuntu`, and `docker.io` stays `docker.io`.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NewType, Self

import idna

from regproxy.oci.wording import shown

Tag = NewType("Tag", str)
"""A tag that satisfies the grammar; made by `parse_tag`."""

HTTPS_PORT = 443
"""The port that a registry without a port is reached on."""

# The spec puts no bound on a name but notes that clients limit registry and name together to 255 characters.
MAX_NAME_CHARACTERS = 255

# <name>: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")

# <reference> as a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# Deviation: RFC 1123 has no underscore, but compose service names and some private DNS zones do.
_HOST_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_MAX_HOST_CHARACTERS = 253
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]{1,5}))?")


def parse_repository_name(text: str) -> str:
    """Return `text` when it is a repository name such as `library/alpine`, else raise ValueError."""
    if len(text) > MAX_NAME_CHARACTERS:
        raise ValueError(f"repository name {shown(text)} is longer than {MAX_NAME_CHARACTERS} characters")
    if _REPOSITORY_NAME.fullmatch(text) is None:
        raise ValueError(
            f"repository name {shown(text)} must be lower-case components of letters and digits, joined by slashes"
        )
    return text


def parse_tag(text: str) -> Tag:
    """Return `text` when it is a tag such as `latest` or `3.20`, else raise ValueError."""
    if _TAG.fullmatch(text) is None:
        raise ValueError(
            f"tag {shown(text)} must be 1 to 128 letters, digits, underscores, periods or hyphens "
            "and must not start with a period or a hyphen"
        )
    return Tag(text)


@dataclass(frozen=True, slots=True)
class Registry:
    """Where a registry is: the part of an image name before the first slash."""

    host: str
    """Host name in lower case without a final dot, or an IP address in its shortest form, without brackets."""

    port: int = HTTPS_PORT
    """TCP port, 1 to 65535."""

    def __post_init__(self) -> None:
        if self.host != normalise_host(self.host):
            raise ValueError(f"registry host {shown(self.host)} is not in normal form; use Registry.parse")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"registry port {self.port} of {self.host} is not between 1 and 65535")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int = HTTPS_PORT) -> Self:
        """Read `host`, `host:port` or `[IPv6]:port`; ValueError for anything else (schemes, paths, user names)."""
        host, port = parse_authority(text)
        return cls(host, default_port if port is None else port)


def parse_authority(text: str) -> tuple[str, int | None]:
    """Read `host`, `host:port` or `[IPv6]:port` into a normalised host and a port, None when none is written.

    Raises ValueError for anything else, and for a port that is not between 1 and 65535.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is not of the form host or host:port")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"{shown(text)} has a port that is not between 1 and 65535")
    return normalise_host(match["host"]), port


def names(authority: str | None, host: str) -> bool:
    """Whether `host` or `host:port` from a client means a host in normal form; None contradicts nothing."""
    if authority is None or authority == host:
        return True
    try:
        return parse_authority(authority)[0] == host
    except ValueError:
        return False


def normalise_host(text: str) -> str:
    """Return the one spelling of a host name or IP address, so that equal hosts compare equal.

    Accepts any case, one final dot (DNS root), IPv6 with or without brackets, and internationalised names, which
    become A-labels. Raises ValueError when the text is neither a host name nor an IP address.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare or bare != text:
        return _normalise_ipv6(bare)
    host = to_a_labels(bare).lower().removesuffix(".")
    if len(host) > _MAX_HOST_CHARACTERS or _HOST_NAME.fullmatch(host) is None:
        raise ValueError(f"{shown(text)} is not a host name or an IP address")
    return host


def to_a_labels(host: str) -> str:
    """Return a host name, or a pattern of some, with each internationalised label as DNS knows it.

    Raises ValueError for a label that DNS cannot have.
    """
    if host.isascii():
        return host
    try:
        return ".".join(
            label if label.isascii() else idna.encode(label, uts46=True).decode() for label in host.split(".")
        )
    except idna.IDNAError:
        raise ValueError(f"{shown(host)} is not a host name: a label cannot be written as an A-label") from None


def _normalise_ipv6(bare: str) -> str:
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError:
        raise ValueError(f"{shown(bare)} is not an IPv6 address") from None
    if address.scope_id is not None:
        raise ValueError(f"{shown(bare)} names a network interface, which means nothing to other machines")
    return str(address)
