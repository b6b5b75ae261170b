"""Lookups at name servers of the operator's choice, by the resolver that mitmproxy brings (hickory-dns)."""

import socket
from collections.abc import Awaitable, Callable, Sequence

import mitmproxy_rs


def lookup_at(nameservers: Sequence[str]) -> Callable[[str, socket.AddressFamily], Awaitable[list[str]]]:
    """Return what looks names up at these IP addresses; the hosts file counts first, as with the system's lookup.

    It raises OSError for a name without an address.
    """
    resolver = mitmproxy_rs.dns.DnsResolver(name_servers=list(nameservers), use_hosts_file=True)

    async def look_up(host: str, family: socket.AddressFamily) -> list[str]:
        if family == socket.AF_INET:
            return await resolver.lookup_ipv4(host)
        return await resolver.lookup_ip(host)

    return look_up
