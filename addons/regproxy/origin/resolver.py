"""Where a host name leads, for the proxy's own requests and for its tunnels.

A name is resolved once, every address is checked, and the checked addresses are the ones connected to: a name that
resolves differently a moment later (DNS rebinding) gains nothing. A host that the operator lists may be anywhere; a
host that only a redirect names may not be in our own network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from contextvars import ContextVar

from aiohttp import abc

from regproxy.policy.addresses import connect_forbidden_reason, forbidden_reason
from regproxy.policy.interception import BUILT_IN_HOSTS, HostPattern
from regproxy.policy.mappings import UpstreamMapping, find_mapping

type AddressRule = Callable[[str], str | None]
"""Returns why an IP address may not be connected to, or None."""


for_inside: ContextVar[bool] = ContextVar("for_inside", default=False)
"""Whether a request is made on behalf of a registry of our own network, and so may lead to private addresses."""


class AddressForbiddenError(OSError):
    """A name leads to an address that may not be connected to."""


def is_listed(host: str, port: int, patterns: Iterable[HostPattern]) -> bool:
    """Whether the operator named this host, so that it may be anywhere."""
    return host in BUILT_IN_HOSTS or any(pattern.matches(host, port) for pattern in patterns)


async def resolve(
    host: str,
    port: int,
    *,
    mappings: Iterable[UpstreamMapping],
    rule: AddressRule | None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
) -> list[tuple[str, int]]:
    """Return the addresses to connect to for `host:port`, in the order to try them.

    A mapped name leads where the operator said, unchecked. Raises `AddressForbiddenError` when any address breaks
    `rule` (checking only the first would let a second one through), OSError when the name cannot be resolved.
    """
    mapping = find_mapping(host, mappings)
    if mapping is not None:
        host, port, rule = mapping.address, mapping.port or port, None
    found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((str(entry[4][0]), port) for entry in found))
    for address, _ in addresses:
        reason = rule(address) if rule is not None else None
        if reason is not None:
            raise AddressForbiddenError(f"{host} leads to {address}, a {reason} address")
    return addresses


class CheckedResolver(abc.AbstractResolver):
    """aiohttp's view of `resolve`."""

    def __init__(
        self, mappings: tuple[UpstreamMapping, ...], listed: tuple[HostPattern, ...], family: socket.AddressFamily
    ) -> None:
        self._mappings = mappings
        self._listed = listed
        self._family = family

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        """Return the checked addresses of a name, for the connector to try."""
        del family  # the connector's guess; ours is a setting
        rule = self._rule(host, port)
        addresses = await resolve(host, port, mappings=self._mappings, rule=rule, family=self._family)
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
            addresses = await resolve(host, port, mappings=self._mappings, rule=None, family=self._family)
        except OSError:
            return False
        return any(forbidden_reason(address) is not None for address, _ in addresses)

    def _rule(self, host: str, port: int) -> AddressRule | None:
        if is_listed(host, port, self._listed):
            return None
        return connect_forbidden_reason if for_inside.get() else forbidden_reason

    def check_literal(self, host: str, port: int) -> None:
        """Check a host that is an IP address, which no resolver sees. Raises `AddressForbiddenError`."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        rule = self._rule(host, port)
        reason = None if rule is None else rule(host)
        if reason is not None:
            raise AddressForbiddenError(f"{host} is a {reason} address")
