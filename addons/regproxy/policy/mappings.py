"""Where a host is really reached: an operator's own name resolution for upstreams.

A mapping replaces the address that is connected to, and optionally the port; TLS, the Host header and credentials keep
the name. It serves laboratories, split DNS, and registries that are only known by address.

    registry.example.com=10.0.0.5
    registry.example.com=127.0.0.1:5443
    registry.example.com=[fd00::5]:5443
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from regproxy.oci.names import normalise_host, parse_authority
from regproxy.oci.wording import shown


@dataclass(frozen=True, slots=True)
class UpstreamMapping:
    """One host name and the address that is connected to in its place."""

    name: str
    """Host name as clients and TLS use it, in lower case."""

    address: str
    """Host name or IP address to connect to, without brackets."""

    port: int | None = None
    """Port to connect to; None keeps the port that was asked for."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name=address[:port]`; ValueError says what is wrong with it."""
        name, equals, target = text.partition("=")
        if not equals:
            raise ValueError(f"upstream mapping {shown(text)} is not of the form name=address or name=address:port")
        return cls(normalise_host(name.strip()), *parse_authority(target.strip()))


def find_mapping(host: str, mappings: Iterable[UpstreamMapping]) -> UpstreamMapping | None:
    """Return the first mapping of a host, in any spelling of it, or None."""
    try:
        name = normalise_host(host)
    except ValueError:
        return None
    return next((mapping for mapping in mappings if mapping.name == name), None)
