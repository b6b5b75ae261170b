"""Through which proxy an upstream is reached, by the variables that every command-line client knows.

HTTPS_PROXY is for upstreams that speak https and for tunnels, HTTP_PROXY for plain http, NO_PROXY for exceptions. There
is no standard; where curl, Go and Python differ, Go's rules hold (golang.org/x/net/http/httpproxy), because the clients
of registries are mostly written in Go: `host` covers the names below it, networks match addresses that are written as
such, `localhost` and loopback addresses are never sent to a proxy.
"""

import base64
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from regproxy.oci.names import normalise_host, parse_authority

_DEFAULT_PROXY_PORT = 80
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """Another HTTP proxy. Its text forms do not show the login."""

    host: str
    """Host name in lower case or IP address, without brackets."""
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `http://[user:password@]host[:port]`, the scheme may be missing.

        Raises ValueError, whose message repeats nothing of the text: it may hold a password.
        """
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme.lower() != "http":
            raise ValueError("only proxies that are spoken to by http:// are supported")
        login, _, authority = parts.netloc.rpartition("@")
        try:
            host, port = parse_authority(authority)
        except ValueError:
            raise ValueError("not of the form http://[user:password@]host:port") from None
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("a proxy's URL has no path")
        username, _, password = login.partition(":")
        return cls(host, _DEFAULT_PROXY_PORT if port is None else port, unquote(username), unquote(password))


@dataclass(frozen=True, slots=True)
class ProxyException:
    """One entry of NO_PROXY."""

    host: str = ""
    """The host; every name below it, too, unless `only_below`. Empty when the entry is a network or a star."""
    only_below: bool = False
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None
    """The only port that is meant; None is every port."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one entry; ValueError when it is none."""
        if text == "*":
            return cls()
        if "/" in text:
            try:
                return cls(network=ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise ValueError("not a network such as 10.0.0.0/8") from None
        bare = text if text.count(":") < 2 or text.startswith("[") else f"[{text}]"
        match = _HOST_AND_PORT.fullmatch(bare)
        if match is None:
            raise ValueError("not a host, an address or a network")
        name = match["host"].removeprefix("*")
        only_below = name.startswith(".")
        host = normalise_host(name.removeprefix("."))
        return cls(host, only_below=only_below, port=int(match["port"]) if match["port"] else None)

    def matches(self, host: str, port: int) -> bool:
        """Whether a normalised host and port are excepted."""
        if self.port not in (None, port):
            return False
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        if not self.host:
            return True
        return (host == self.host and not self.only_below) or host.endswith(f".{self.host}")


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """The proxies of this machine's network."""

    https: ForwardProxy | None = None
    http: ForwardProxy | None = None
    exceptions: tuple[ProxyException, ...] = ()

    @property
    def proxies(self) -> tuple[ForwardProxy, ...]:
        """The proxies that may be used."""
        return tuple(proxy for proxy in (self.https, self.http) if proxy is not None)

    def choose(self, scheme: str, host: str, port: int) -> ForwardProxy | None:
        """Return the proxy for an upstream, None when it is reached directly."""
        proxy = self.http if scheme == "http" else self.https
        if proxy is None or _is_local(host) or any(entry.matches(host, port) for entry in self.exceptions):
            return None
        return proxy

    def without(self, unusable: Iterable[ForwardProxy]) -> "ProxyPlan":
        """Return the plan without proxies that lead back to us."""
        left_out = tuple(unusable)
        return ProxyPlan(
            None if self.https in left_out else self.https,
            None if self.http in left_out else self.http,
            self.exceptions,
        )


DIRECT = ProxyPlan()


def proxy_authorization(proxy: ForwardProxy) -> str | None:
    """Return the value of the `Proxy-Authorization` field for a proxy, None when it wants no login."""
    if not proxy.username:
        return None
    return "Basic " + base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode("ascii")


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
