"""Who may use the admin API, and see the names of images, accounts and clients on the dashboard.

With a token: who shows it. Without one: who connects from this machine and is not a web page or a reverse proxy, for
both would lend the machine's own address to others (CSRF; every client behind the proxy). In both cases the Host field
is a literal address, `localhost` or a name that the operator listed: a page whose own name was turned to this address
(DNS rebinding) has another.

Which door a request came by is decided before: nothing but the proxy's own address, in origin-form, leads here.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from regproxy.oci.names import parse_authority

FORWARDED_FIELDS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""What reverse proxies say of the client that they stand for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    reason: str


def refusal(
    headers: Mapping[str, str], client_ip: str, token: str, named_hosts: frozenset[str] = frozenset()
) -> Refusal | None:
    """Return why a client may not come in; None when it may.

    `headers` has lower-case names; `token` is the operator's, empty for none; `named_hosts` are in normal form.
    """
    if not _is_host_known(headers.get("host", ""), named_hosts):
        return Refusal(421, "the Host field is no address and none of ADMIN_HOSTS: list the name there, or use the IP")
    if token:
        return None if _shows(headers.get("authorization", ""), token) else _NO_TOKEN
    if not _is_loopback(client_ip):
        return Refusal(403, "without ADMIN_TOKEN only clients on this machine may use the admin API: set a token")
    if any(field in headers for field in FORWARDED_FIELDS):
        return Refusal(403, "behind a reverse proxy every client seems to be on this machine: set ADMIN_TOKEN")
    if _is_cross_site(headers):
        return Refusal(403, "requests of other sites' pages are not answered")
    return None


_NO_TOKEN = Refusal(401, "the admin API needs the field Authorization: Bearer <ADMIN_TOKEN>")


def _shows(authorization: str, token: str) -> bool:
    scheme, _, shown = authorization.strip().partition(" ")
    is_right = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), token.encode())
    return scheme.lower() == "bearer" and is_right


def _is_host_known(field: str, named_hosts: frozenset[str]) -> bool:
    try:
        host, _ = parse_authority(field)
    except ValueError:
        return False
    return host == "localhost" or host in named_hosts or _address(host) is not None


def _is_loopback(client_ip: str) -> bool:
    address = _address(client_ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this for a page that is not ours (W3C Fetch Metadata; RFC 6454 for older ones)."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
