"""Addresses: nothing inside the network is reached on a registry's word, in whatever form it is written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.addresses import connect_forbidden_reason, forbidden_reason


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.127.255.255", "carrier-grade NAT"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("192.0.0.192", "metadata"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::127.0.0.1", "loopback"),
        ("::ffff:0:10.0.0.1", "private"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b:1::1", "private"),
        ("2002:7f00:1::", "loopback"),
        ("2002:a9fe:a9fe::1", "metadata"),
        ("2002:c0a8:101::", "private"),
        ("2001:0:1:2:3:4:80ff:fffe", "loopback"),
    ],
)
def test_addresses_inside_are_refused(ip: str, reason: str) -> None:
    """Each special block is named, also when the IPv4 address hides in an IPv6 address."""
    assert forbidden_reason(ip) == reason


@pytest.mark.parametrize(
    "ip",
    [
        "1.1.1.1",
        "104.18.121.25",
        "11.0.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.167.255.255",
        "100.63.255.255",
        "100.128.0.1",
        "128.0.0.1",
        "223.255.255.255",
        "2606:4700::6810:7919",
        "2a00:1450::1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::",
    ],
)
def test_public_addresses_are_free(ip: str) -> None:
    """Public addresses, and the neighbours of each block, may be connected to by both rules."""
    assert forbidden_reason(ip) is None
    assert connect_forbidden_reason(ip) is None


@pytest.mark.parametrize("ip", ["10.1.2.3", "192.168.1.1", "fd12:3456::1", "100.64.0.1", "::ffff:172.16.0.1"])
def test_tunnels_into_the_local_network_are_allowed(ip: str) -> None:
    """A client may CONNECT to private addresses, although no registry may send us there."""
    assert connect_forbidden_reason(ip) is None
    assert forbidden_reason(ip) is not None


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("::", "unspecified"),
        ("169.254.1.1", "link-local"),
        ("fe80::1%1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
    ],
)
def test_tunnels_to_the_machine_and_its_metadata_are_refused(ip: str, reason: str) -> None:
    """CONNECT never reaches the proxy's own machine, its link or its cloud credentials."""
    assert connect_forbidden_reason(ip) == reason


@pytest.mark.parametrize("ip", ["", "localhost", "127.1", "0x7f000001", "1.1.1.1:443", "[::1]"])
def test_what_is_no_address_is_not_judged(ip: str) -> None:
    """Names and short forms raise ValueError: only resolved addresses are judged."""
    with pytest.raises(ValueError, match="does not appear to be"):
        forbidden_reason(ip)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_no_freer_than_itself(address: ipaddress.IPv4Address) -> None:
    """Whatever is refused as IPv4 is refused inside every IPv6 form, by both rules."""
    number = int(address)
    forms = (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1),
        ipaddress.IPv6Address(0x2001_0000 << 96 | (number ^ 0xFFFF_FFFF)),
    )

    for form in forms:
        assert forbidden_reason(str(form)) == forbidden_reason(str(address))
        assert connect_forbidden_reason(str(form)) == connect_forbidden_reason(str(address))


@given(st.ip_addresses())
def test_tunnels_are_refused_only_where_registries_are(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """The rule for CONNECT is never stricter than the rule for redirects."""
    if connect_forbidden_reason(str(address)) is not None:
        assert forbidden_reason(str(address)) is not None
