"""Which images are served, and which clients are: the operator's rules.

    allow docker.io/library/*
    allow quay.io/secret/* from 10.1.0.0/16 192.0.2.7
    deny quay.io/* from 10.2.0.0/16
    deny *

The first rule that fits decides; an image that none fits is served. `allow ... from` lets these clients only, and
refuses all others; `deny ... from` refuses these clients only. Names are `host[:port]/name`, a star stands for any
characters, slashes too; Docker Hub is `docker.io`. Pushes and lists are under the same rules.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

from regproxy.oci.names import Registry
from regproxy.oci.wording import shown
from regproxy.policy.credentials import DOCKER_HUB_ALIASES

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[a-zA-Z0-9*._:/\[\]-]+")
_HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class ImageRule:
    """One rule."""

    allow: bool
    pattern: str
    """Of `host/name`, in lower case."""
    clients: tuple[Network, ...] = ()
    """For whom it is; empty means for everybody."""
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expression = ".*".join(re.escape(part) for part in self.pattern.split("*"))
        object.__setattr__(self, "_regex", re.compile(expression))

    def __str__(self) -> str:
        clients = f" from {' '.join(map(str, self.clients))}" if self.clients else ""
        return f"{'allow' if self.allow else 'deny'} {self.pattern}{clients}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `allow|deny PATTERN [from NETWORK ...]`. Raises ValueError."""
        match text.split():
            case [("allow" | "deny") as verb, pattern, *rest] if rest[:1] in ([], ["from"]) and len(rest) != 1:
                if _NAME.fullmatch(pattern) is None:
                    raise ValueError(f"{shown(text)}: {shown(pattern)} is no image name with stars")
                words = [word for part in rest[1:] for word in part.split(",") if word]
                return cls(verb == "allow", _normalised(pattern.lower()), tuple(map(parse_network, words)))
            case _:
                raise ValueError(f"{shown(text)} is not of the form `allow NAME` or `deny NAME from NETWORK`")

    def lets_in(self, image: str, client: str) -> bool | None:
        """Whether a client is served an image by this rule; None when it is about others."""
        if self._regex.fullmatch(image) is None:
            return None
        is_meant = not self.clients or is_within(client, self.clients)
        if self.allow:
            return is_meant
        return False if is_meant else None


def denying_rule(rules: Iterable[ImageRule], registry: Registry, name: str | None, client: str) -> ImageRule | None:
    """Return the rule that refuses a client a repository; None when it is served.

    Without a name it is about the registry as a whole (its catalogue).
    """
    host = _HUB if registry.host in DOCKER_HUB_ALIASES else str(registry)
    image = host if name is None else f"{host}/{name}"
    for rule in rules:
        lets_in = rule.lets_in(image, client)
        if lets_in is not None:
            return None if lets_in else rule
    return None


def without_effect(rules: Iterable[ImageRule]) -> ImageRule | None:
    """Return an `allow` behind which nothing is refused: meant to be a list of all that is served, and it is not."""
    last = next(iter(reversed(list(rules))), None)
    return last if last is not None and last.allow and not last.clients else None


def parse_network(text: str) -> Network:
    """Read `10.0.0.0/8`, `2001:db8::/32` or a single address. Raises ValueError."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown(text)} is neither a network such as 10.0.0.0/8 nor an address") from None


def may_use(client: str, networks: tuple[Network, ...]) -> bool:
    """Whether a client, by its address, may use the proxy; everybody may when no networks are named."""
    return not networks or is_within(client, networks)


@lru_cache(maxsize=4096)
def is_within(client: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks; an IPv4 address in IPv6 dress is an IPv4 address."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _normalised(pattern: str) -> str:
    """Write Docker Hub's names as one."""
    host, slash, name = pattern.partition("/")
    return f"{_HUB}{slash}{name}" if host in DOCKER_HUB_ALIASES else pattern
