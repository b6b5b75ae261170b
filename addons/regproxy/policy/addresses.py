"""Which IP addresses the proxy must not connect to on someone else's word.

A redirect, a token realm or a CONNECT may name a host inside the network the proxy stands in. The caller resolves the
name once, asks here about **every** address, and connects to the very address it asked about, so that a second
resolution cannot change the answer. Blocks: IANA special-purpose registries (RFC 6890), and the well-known addresses
where cloud machines find their own credentials.

Hosts that the operator listed are exempt; that is the caller's knowledge.
"""

import ipaddress
from collections.abc import Iterator

type IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
type IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack and most others
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod identity
        "fd00:ec2::23",
        "fd00:ec2::254",
        "fd20:ce::254",  # Google
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure host agent, a public address
        "192.0.0.192",  # Oracle
    )
)

_BLOCKS: tuple[tuple[IPNetwork, str], ...] = tuple(
    (ipaddress.ip_network(block), reason)
    for block, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("10.0.0.0/8", "private"),
        ("172.16.0.0/12", "private"),
        ("192.168.0.0/16", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("192.0.0.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("fc00::/7", "private"),
        ("fec0::/10", "private"),  # site-local, deprecated by RFC 3879 but still routed by some
        ("64:ff9b:1::/48", "private"),  # NAT64 inside one network, RFC 8215
        ("100::/64", "reserved"),
        ("ff00::/8", "multicast"),
    )
)

# Prefixes that carry an IPv4 address, and how many bits follow it. A gateway for one turns it into that IPv4 address.
_EMBEDDINGS = tuple(
    (ipaddress.IPv6Network(prefix), bits_after)
    for prefix, bits_after in (
        ("::ffff:0:0/96", 0),  # IPv4-mapped: the kernel itself connects over IPv4
        ("::/96", 0),  # IPv4-compatible, deprecated
        ("::ffff:0:0:0/96", 0),  # IPv4-translated (SIIT), RFC 7915
        ("64:ff9b::/96", 0),  # NAT64, RFC 6052
        ("2002::/16", 80),  # 6to4, RFC 3056
    )
)
_TEREDO = ipaddress.IPv6Network("2001::/32")

_CONNECT_REASONS = frozenset({"metadata", "loopback", "link-local", "unspecified"})


def forbidden_reason(ip: str) -> str | None:
    """Return why an address named by a registry may not be connected to, in one or two words, or None if it may.

    `ip` is an address as a resolver returns it, a zone (`%eth0`) included; ValueError when it is not an address.
    """
    return next(_reasons(ip), None)


def connect_forbidden_reason(ip: str) -> str | None:
    """Return why a client's CONNECT may not be tunnelled to an address, or None if it may.

    Narrower than `forbidden_reason`: clients use the proxy to reach hosts of their own network.
    """
    return next((reason for reason in _reasons(ip) if reason in _CONNECT_REASONS), None)


def _reasons(ip: str) -> Iterator[str]:
    """Give every reason against an address or an IPv4 address inside it, the most telling one first."""
    for address in _meanings(ipaddress.ip_address(ip)):
        if address in _METADATA:
            yield "metadata"
        for block, reason in _BLOCKS:
            if address in block:
                yield reason


def _meanings(address: IPAddress) -> Iterator[IPAddress]:
    """Give the address without its zone, and the IPv4 addresses that it may be turned into on the way."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    bare = ipaddress.IPv6Address(int(address))
    yield bare
    for network, bits_after in _EMBEDDINGS:
        if bare in network:
            yield ipaddress.IPv4Address(int(bare) >> bits_after & 0xFFFF_FFFF)
    if bare in _TEREDO:
        # RFC 4380 section 4: the client's IPv4 address, every bit inverted, is at the end.
        yield ipaddress.IPv4Address(~int(bare) & 0xFFFF_FFFF)
