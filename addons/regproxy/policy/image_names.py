"""Who may see the names of images, of accounts and of clients on the proxy's own pages.

Everybody who reaches the port may read how the cache does; what is pulled, and by whom, is for the operator: who shows
the admin token, or who sits at this machine. The machine's own address is lent to others by a reverse proxy and by web
pages, so neither counts: not a request that was forwarded, not one of another site's page, and not one whose Host is a
name that somebody turned to this address (DNS rebinding).
"""

import hmac
import ipaddress
from collections.abc import Mapping

from regproxy.oci.names import parse_authority

FORWARDED_FIELDS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def may_see_names(headers: Mapping[str, str], client_ip: str, token: str = "") -> bool:
    """Whether a request to the proxy's own address shows the token (empty: there is none), or is from this machine.

    `headers` has lower-case names.
    """
    if token and shows_token(headers.get("authorization", ""), token):
        return True
    return (
        _is_loopback(client_ip)
        and _is_own_host(headers.get("host", ""))
        and not any(field in headers for field in FORWARDED_FIELDS)
        and headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        and headers.get("origin", "").partition("://")[2] in ("", headers.get("host"))
    )


def shows_token(authorization: str, token: str) -> bool:
    """Whether a field is `Bearer <token>`; takes as long for a wrong one as for the right one."""
    scheme, _, shown = authorization.strip().partition(" ")
    is_right = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), token.encode())
    return scheme.lower() == "bearer" and is_right


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def _is_own_host(field: str) -> bool:
    try:
        host, _ = parse_authority(field)
    except ValueError:
        return False
    return host == "localhost" or _is_loopback(host)
