"""Where a host name leads, for the proxy's own requests and for its tunnels.

A name is resolved once, every address is checked, and the checked addresses are the ones connected to: a name that
resolves differently a moment later (DNS rebinding) gains nothing. A host that the operator lists may be anywhere; a
host that only a redirect names may not be in our own network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import ContextVar

from aiohttp import abc

from regproxy.policy.addresses import connect_forbidden_reason, forbidden_reason
from regproxy.policy.interception import BUILT_IN_HOSTS, HostPattern, find_pattern
from regproxy.policy.mappings import UpstreamMapping, find_mapping

type AddressRule = Callable[[str], str | None]
"""Returns why an IP address may not be connected to, or None."""


type Lookup = Callable[[str, socket.AddressFamily], Awaitable[Iterable[str]]]
"""Returns the IP addresses of a host name, the best first; OSError when there is none."""
for_inside: ContextVar[bool] = ContextVar("for_inside", default=False)
"""Whether a request is made on behalf of a registry of our own network, and so may lead to private addresses."""


class AddressForbiddenError(OSError):
    """A name leads to an address that may not be connected to."""


def is_listed(host: str, port: int, patterns: Iterable[HostPattern]) -> bool:
    """Whether the operator named this host, so that it may be anywhere."""
    return host in BUILT_IN_HOSTS or find_pattern(host, port, patterns) is not None


async def system_lookup(host: str, family: socket.AddressFamily) -> list[str]:
    """Ask the system: its hosts file, its name servers, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def resolve(  # noqa: PLR0913 - what is asked for, and by which rules
    host: str,
    port: int,
    *,
    mappings: Iterable[UpstreamMapping],
    rule: AddressRule | None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    lookup: Lookup = system_lookup,
) -> list[tuple[str, int]]:
    """Return the addresses to connect to for `host:port`, in the order to try them.

    A mapped name leads where the operator said, unchecked. Raises `AddressForbiddenError` when any address breaks
    `rule` (checking only the first would let a second one through), OSError when the name cannot be resolved.
    """
    mapping = find_mapping(host, mappings)
    if mapping is not None:
        host, port, rule = mapping.address, mapping.port or port, None
    # A name server knows names only.
    found = await (system_lookup if _is_literal(host) else lookup)(host, family)
    addresses = [(address, port) for address in dict.fromkeys(found)]
    for address, _ in addresses:
        reason = rule(address) if rule is not None else None
        if reason is not None:
            raise AddressForbiddenError(f"{host} leads to {address}, a {reason} address")
    return addresses


class CheckedResolver(abc.AbstractResolver):
    """aiohttp's view of `resolve`."""

    def __init__(
        self,
        mappings: tuple[UpstreamMapping, ...],
        listed: tuple[HostPattern, ...],
        family: socket.AddressFamily,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._mappings = mappings
        self._listed = listed
        self._family = family
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        """Return the checked addresses of a name, for the connector to try."""
        del family  # the connector's guess; ours is a setting
        rule = self._rule(host, port)
        addresses = await resolve(
            host, port, mappings=self._mappings, rule=rule, family=self._family, lookup=self._lookup
        )
        return [
            abc.ResolveResult(
                hostname=host,
                host=address,
                port=mapped_port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address, mapped_port in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""

    async def is_inside(self, host: str, port: int) -> bool:
        """Whether a name leads into our own network; False when it cannot be resolved."""
        try:
            addresses = await resolve(
                host, port, mappings=self._mappings, rule=None, family=self._family, lookup=self._lookup
            )
        except OSError:
            return False
        return any(forbidden_reason(address) is not None for address, _ in addresses)

    def _rule(self, host: str, port: int) -> AddressRule | None:
        if is_listed(host, port, self._listed):
            return None
        return connect_forbidden_reason if for_inside.get() else forbidden_reason

    def check_literal(self, host: str, port: int) -> None:
        """Check a host that is an IP address, which no resolver sees. Raises `AddressForbiddenError`."""
        if not _is_literal(host):
            return
        rule = self._rule(host, port)
        reason = None if rule is None else rule(host)
        if reason is not None:
            raise AddressForbiddenError(f"{host} is a {reason} address")


def is_own_port(address: str, port: int, own_ports: Collection[int]) -> bool:
    """Whether an address is one of the proxy's own ports on one of this machine's addresses."""
    if port not in own_ports:
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))  # only an address of this machine can be bound
        except OSError:
            return False
    return True


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
