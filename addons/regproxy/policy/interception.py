"""Which hosts the proxy intercepts; every other CONNECT is tunnelled untouched.

Three Docker Hub hosts and the proxy's own name are always intercepted, the rest is what the operator lists. Patterns
follow the host names of an nginx map, which the predecessor used, and extend them by ports and a plain-http scheme:

    quay.io                         this host, on every port
    reg.example.com:5000            this host on this port only
    *.example.com                   every host below example.com, at any depth
    .example.com                    the same and example.com itself
    registry.*                      registry.com, registry.example.org ...
    *.dkr.ecr.*.amazonaws.com       a star inside stands for one label, or a part of one
    http://reg.example.com:5000     as above, and the upstream speaks plain http
    -reg.example.com                never intercepted, whatever else covers it; also one of the built-in hosts

This module does not decide whether an address may be reached: see `regproxy.policy.addresses`.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from regproxy.oci.names import normalise_host, to_a_labels
from regproxy.oci.wording import shown

BUILT_IN_HOSTS = (
    "registry-1.docker.io",
    "auth.docker.io",
    "index.docker.io",
    "docker.caching.proxy.internal",
)
"""Intercepted without being listed; the last one is how the predecessor's clients name the proxy itself."""

_ENTRY = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[^\[\]]*\]|[^\[\]:/@]+)(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE,
)
_LABEL = r"[a-z0-9_*](?:[a-z0-9_*-]*[a-z0-9_*])?"
_WILDCARD_HOST = re.compile(rf"\.?{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of the operator's list of hosts. Patterns are equal when host, port and scheme are."""

    host: str
    """Host name with its wildcards, or IP address, in lower case."""

    port: int | None = None
    """The only port that matches; None is every port."""

    plain_http: bool = False
    """The upstream is spoken to without TLS."""

    tunnelled: bool = False
    """The operator wants these hosts left alone: an exception from every other entry."""

    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"host {shown(self.host)} has port {self.port}, which is not between 1 and 65535")
        object.__setattr__(self, "_regex", _compile(self.host))

    def __str__(self) -> str:
        scheme = ("-" if self.tunnelled else "") + ("http://" if self.plain_http else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}{host}" if self.port is None else f"{scheme}{host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether the pattern may match more than one host, so that it names no host by itself."""
        return "*" in self.host or self.host.startswith(".")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one entry of a host list; ValueError says what is wrong with it."""
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise ValueError(f"{shown(text)} is not of the form host, host:port or http://host:port")
        port = int(match["port"]) if match["port"] else None
        return cls(_normalise_pattern(match["host"]), port, plain_http=(match["scheme"] or "").lower() == "http")

    def matches(self, host: str, port: int) -> bool:
        """Whether a host and port that a client asks for fall under this entry; malformed hosts do not."""
        if self.port not in (None, port):
            return False
        try:
            return self._regex.fullmatch(normalise_host(host)) is not None
        except ValueError:
            return False


def is_intercepted(host: str, port: int, patterns: Iterable[HostPattern]) -> bool:
    """Whether TLS to this host is terminated by the proxy."""
    try:
        listed = normalise_host(host) in BUILT_IN_HOSTS
    except ValueError:
        return False
    for pattern in patterns:
        if pattern.matches(host, port):
            if pattern.tunnelled:
                return False
            listed = True
    return listed


def find_pattern(host: str, port: int, patterns: Iterable[HostPattern]) -> HostPattern | None:
    """Return the first entry that covers a host, for its scheme; None when only a built-in or nothing does."""
    return next((pattern for pattern in patterns if not pattern.tunnelled and pattern.matches(host, port)), None)


def _normalise_pattern(text: str) -> str:
    """Lower the case and check the grammar of a host with or without wildcards."""
    if "*" not in text and not text.startswith("."):
        return normalise_host(text)
    host = to_a_labels(text).lower().removesuffix(".")
    if _WILDCARD_HOST.fullmatch(host) is None:
        raise ValueError(f"{shown(text)} is not a host name with wildcards")
    if re.search(r"[a-z0-9]", host) is None:
        raise ValueError(f"{shown(text)} would match every host; name the registries to intercept")
    return host


def _compile(host: str) -> re.Pattern[str]:
    """Turn a normalised pattern into an expression over normalised hosts."""
    if _is_ip_address(host):
        return re.compile(re.escape(host))
    prefix, suffix = "", ""
    if host.startswith("*."):
        prefix, host = r"(?:[^.]+\.)+", host[2:]
    elif host.startswith("."):
        prefix, host = r"(?:[^.]+\.)*", host[1:]
    if host.endswith(".*"):
        host, suffix = host[:-2], r"(?:\.[^.]+)+"
    labels = ("[^.]+" if label == "*" else re.escape(label).replace(r"\*", "[^.]*") for label in host.split("."))
    return re.compile(prefix + r"\.".join(labels) + suffix)


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
