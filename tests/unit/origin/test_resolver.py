"""Where names lead, and where they may not."""

import asyncio
import socket
from collections.abc import Callable, Sequence

import pytest

from regproxy.origin.resolver import AddressForbiddenError, CheckedResolver, is_listed, resolve
from regproxy.policy.addresses import forbidden_reason
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping

type Lookups = list[tuple[str, int | None, socket.AddressFamily]]
type Names = Callable[..., Lookups]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return what replaces DNS: each lookup gives the next of the answers, the last one for ever."""

    def answer(*answers: Sequence[str]) -> Lookups:
        lookups: Lookups = []
        left = list(answers)

        async def getaddrinfo(
            host: str,
            port: int | None,
            *,
            family: socket.AddressFamily,
            type: int,  # noqa: A002 - the loop's name for it
        ) -> list[tuple[object, ...]]:
            lookups.append((host, port, family))
            now = left.pop(0) if len(left) > 1 else left[0]
            return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, type, 6, "", (ip, port)) for ip in now]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return lookups

    return answer


async def test_every_address_counts(names: Names) -> None:
    """In the order of the system, each once."""
    names(["192.0.2.1", "2001:db8::1", "192.0.2.1"])

    assert await resolve("quay.io", 443, mappings=(), rule=None) == [("192.0.2.1", 443), ("2001:db8::1", 443)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%eth0"],
        ["2606:2800::1", "fd00:ec2::254"],
        ["0.0.0.0"],  # noqa: S104 - it is refused
    ],
    ids=" ".join,
)
async def test_a_name_with_any_forbidden_address_is_refused(names: Names, addresses: list[str]) -> None:
    """One bad address is enough, wherever it stands; the message names host, address and kind."""
    names(addresses)

    with pytest.raises(AddressForbiddenError, match=r"^cdn\.example leads to .*, an? .* address$"):
        await resolve("cdn.example", 443, mappings=(), rule=forbidden_reason)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "017700000001"])
async def test_odd_spellings_of_loopback_are_seen_through(host: str) -> None:
    """What the system's own resolver makes of them is what is checked."""
    with pytest.raises(OSError, match=r"loopback|Name or service not known"):
        await resolve(host, 443, mappings=(), rule=forbidden_reason)


@pytest.mark.parametrize(
    ("mapping", "expected"), [("10.0.0.5:5443", ("10.0.0.5", 5443)), ("127.0.0.1", ("127.0.0.1", 443))]
)
async def test_a_mapped_name_leads_where_the_operator_said(mapping: str, expected: tuple[str, int]) -> None:
    """Unchecked, without DNS for an address, and with the port that was asked for unless another is given."""
    mappings = (UpstreamMapping.parse(f"registry.example={mapping}"),)

    assert await resolve("Registry.Example", 443, mappings=mappings, rule=forbidden_reason) == [expected]


async def test_a_mapping_may_be_a_name(names: Names) -> None:
    """Then that name is looked up instead."""
    lookups = names(["10.0.0.9"])
    mappings = (UpstreamMapping.parse("registry.example=inside.lan:5000"),)

    assert await resolve("registry.example", 443, mappings=mappings, rule=forbidden_reason) == [("10.0.0.9", 5000)]
    assert [host for host, _, _ in lookups] == ["inside.lan"]


async def test_a_name_that_does_not_exist_is_an_os_error() -> None:
    """Not forbidden: the caller tells the two apart."""
    with pytest.raises(OSError, match=r"not known|resolution") as raised:
        await resolve("no-such-host.invalid", 443, mappings=(), rule=forbidden_reason)

    assert not isinstance(raised.value, AddressForbiddenError)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("registry-1.docker.io", 443, True),
        ("quay.io", 443, True),
        ("a.lan", 5000, True),
        ("a.lan", 443, False),
        ("ghcr.io", 443, False),
    ],
)
def test_listed_hosts_are_those_of_the_operator_and_docker_hub(host: str, port: int, expected: bool) -> None:
    """The port counts where it was given."""
    patterns = (HostPattern.parse("quay.io"), HostPattern.parse("*.lan:5000"))

    assert is_listed(host, port, patterns) is expected


class TestCheckedResolver:
    async def test_the_checked_addresses_are_the_ones_connected_to(self, names: Names) -> None:
        """A name is looked up once, and what the connector gets is numbers: it has nothing to look up again."""
        lookups = names(["93.184.215.14", "2606:2800::1"], ["127.0.0.1"])
        resolver = CheckedResolver((), (), socket.AF_UNSPEC)

        results = await resolver.resolve("cdn.example", 443, socket.AF_INET)

        assert [(result["host"], result["port"], result["family"]) for result in results] == [
            ("93.184.215.14", 443, socket.AF_INET),
            ("2606:2800::1", 443, socket.AF_INET6),
        ]
        assert all(result["flags"] & socket.AI_NUMERICHOST for result in results)
        assert all(result["hostname"] == "cdn.example" for result in results)
        assert lookups == [("cdn.example", None, socket.AF_UNSPEC)]

    async def test_a_name_that_has_changed_its_mind_is_refused(self, names: Names) -> None:
        """DNS rebinding: good at the first look, loopback at the second. Each answer is checked anew."""
        names(["93.184.215.14"], ["127.0.0.1"])
        resolver = CheckedResolver((), (), socket.AF_UNSPEC)
        await resolver.resolve("cdn.example", 443)

        with pytest.raises(AddressForbiddenError, match="loopback"):
            await resolver.resolve("cdn.example", 443)

    async def test_a_listed_host_may_be_anywhere(self, names: Names) -> None:
        """On the listed port alone, if one is given."""
        names(["10.0.0.1"])
        resolver = CheckedResolver((), (HostPattern.parse("reg.lan:5000"),), socket.AF_INET)

        assert [result["host"] for result in await resolver.resolve("reg.lan", 5000)] == ["10.0.0.1"]
        with pytest.raises(AddressForbiddenError):
            await resolver.resolve("reg.lan", 443)

    async def test_ipv6_can_be_left_out(self, names: Names) -> None:
        """The system is asked for IPv4 only."""
        lookups = names(["93.184.215.14"])

        await CheckedResolver((), (), socket.AF_INET).resolve("cdn.example", 443, socket.AF_INET6)

        assert lookups[0][2] is socket.AF_INET

    @pytest.mark.parametrize(
        ("host", "refused"),
        [
            ("127.0.0.1", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("169.254.169.254", True),
            ("93.184.215.14", False),
            ("10.9.9.9", False),
            ("quay.io", False),
        ],
    )
    def test_an_address_in_a_url_is_checked_too(self, host: str, refused: bool) -> None:
        """No resolver is asked about it; a listed one is allowed, and a name is left to the resolver."""
        resolver = CheckedResolver((), (HostPattern.parse("10.9.9.9"),), socket.AF_UNSPEC)

        if refused:
            with pytest.raises(AddressForbiddenError, match=f"^{host} is a .* address$"):
                resolver.check_literal(host, 443)
        else:
            resolver.check_literal(host, 443)
