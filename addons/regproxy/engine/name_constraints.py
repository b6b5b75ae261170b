"""A CA that can sign for the configured hosts only: X.509 name constraints (RFC 5280 section 4.2.1.10).

A host of the settings permits itself and what is below it, for that is what a constraint on names means; of a pattern
the part behind its last star counts. Addresses are permitted one by one, and all others excluded: a list of names alone
says nothing about addresses. OpenSSL, Go and Python's ssl keep to it.
"""

import ipaddress
from collections.abc import Iterable

from cryptography import x509

from regproxy.policy.interception import BUILT_IN_HOSTS, HostPattern

_EVERY_ADDRESS = (x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")), x509.IPAddress(ipaddress.ip_network("::/0")))


class UnlimitedPatternError(ValueError):
    """A pattern has no end that a constraint could name; the text names the pattern and the remedy."""


def name_constraints(patterns: Iterable[HostPattern]) -> x509.NameConstraints:
    """Return what limits a CA to these hosts and those that are always intercepted.

    Raises `UnlimitedPatternError` for a pattern such as `registry.*`.
    """
    wanted = [*BUILT_IN_HOSTS, *(_ending(pattern) for pattern in patterns if not pattern.tunnelled)]
    names = sorted({host for host in wanted if _address(host) is None})
    addresses = sorted({str(address) for host in wanted if (address := _address(host)) is not None})
    permitted = [x509.DNSName(name) for name in names if not _is_below_another(name, names)]
    networks = [x509.IPAddress(ipaddress.ip_network(address)) for address in addresses]
    return x509.NameConstraints([*permitted, *networks], None if networks else list(_EVERY_ADDRESS))


def hosts_outside(certificate: x509.Certificate, patterns: Iterable[HostPattern]) -> tuple[str, ...]:
    """Return the patterns whose hosts the CA's own limits do not allow: clients would refuse its leaves for them."""
    try:
        limits = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    outside = (str(pattern) for pattern in patterns if not pattern.tunnelled and not _allows(limits, pattern))
    return tuple(dict.fromkeys(outside))


def allows_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether clients accept a leaf for this name or address from the CA, as far as its limits go."""
    return not hosts_outside(certificate, [HostPattern(host)])


def _allows(limits: x509.NameConstraints, pattern: HostPattern) -> bool:
    try:
        host = _ending(pattern)
    except UnlimitedPatternError:
        return False
    address = _address(host)
    permitted = [subtree for subtree in limits.permitted_subtrees or () if _is_of_kind(subtree, address)]
    excluded = [subtree for subtree in limits.excluded_subtrees or () if _is_of_kind(subtree, address)]
    is_permitted = not permitted or any(_covers(subtree, host) for subtree in permitted)
    return is_permitted and not any(_covers(subtree, host) for subtree in excluded)


def _is_of_kind(subtree: x509.GeneralName, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    return isinstance(subtree, x509.DNSName if address is None else x509.IPAddress)


def _covers(subtree: x509.GeneralName, host: str) -> bool:
    if isinstance(subtree, x509.DNSName):
        ending = subtree.value.lower().removeprefix(".")
        return not ending or host == ending or host.endswith(f".{ending}")
    assert isinstance(subtree, x509.IPAddress)
    network = ipaddress.ip_network(str(subtree.value))
    return ipaddress.ip_address(host) in network


def _ending(pattern: HostPattern) -> str:
    """Return the host itself, or what all hosts of a pattern have at their end."""
    if not pattern.is_wildcard:
        return pattern.host
    labels = pattern.host.removeprefix(".").split(".")
    stars = [number for number, label in enumerate(labels) if "*" in label]
    ending = ".".join(labels[stars[-1] + 1 :] if stars else labels)
    if not ending:
        raise UnlimitedPatternError(
            f"a CA cannot be limited to {pattern}, which has no end that all its hosts share: "
            "name the hosts, or set CA_NAME_CONSTRAINTS=false"
        )
    return ending


def _is_below_another(name: str, names: Iterable[str]) -> bool:
    return any(name.endswith(f".{other}") for other in names)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
