"""What may be asked of `/setup/<client>`, and what no value may be."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.client_setup import (
    CLIENTS,
    HUB,
    HUB_API,
    BaseUrl,
    SetupDoor,
    SetupOptions,
    client_registries,
    find_client,
    registry_to_test,
)
from regproxy.policy.interception import HostPattern

HARMLESS = re.compile(r"[A-Za-z0-9.,:/_*\[\]=&?-]*")
"""What a shell, YAML and TOML read as text when it is quoted, and most of it also when it is not."""

HOSTILE = (
    "$(reboot)",
    "`reboot`",
    "a;reboot",
    "a|sh",
    "a\nreboot",
    "a'b",
    'a"b',
    "a b",
    "a\\",
    "a&b",
    "a>b",
    "$HOME",
    "#a",
    "a\x00b",
    "ä$(id)",
    "\u202ea",
    "{{a}}",
    "a%0ab",
    "-oProxyCommand=x",
    "user@host",
)


def patterns(*texts: str) -> list[HostPattern]:
    """Read a list of hosts as the settings do."""
    return [
        dataclasses.replace(HostPattern.parse(text.removeprefix("-")), tunnelled=text.startswith("-")) for text in texts
    ]


@pytest.mark.parametrize(
    ("scheme", "authority", "url"),
    [
        ("http", "proxy.lan:3128", "http://proxy.lan:3128"),
        ("https", "proxy.lan", "https://proxy.lan"),
        ("gopher", "proxy.lan", "http://proxy.lan"),
        ("http", "PROXY.Lan.:80", "http://proxy.lan:80"),
        ("http", "10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("http", "[2001:DB8::1]:3128", "http://[2001:db8::1]:3128"),
        ("http", "registry_proxy:3128", "http://registry_proxy:3128"),
    ],
)
def test_the_address_is_what_the_client_used(scheme: str, authority: str, url: str) -> None:
    """In normal form, with the port it had."""
    assert str(BaseUrl.parse(scheme, authority)) == url


@pytest.mark.parametrize("authority", [*HOSTILE, "", ":3128", "a:0", "a:65536", "a:b", "a/b", "[::1", "fe80::1%eth0"])
def test_a_host_field_that_is_no_host_is_refused(authority: str) -> None:
    """It would be in a script that root runs."""
    with pytest.raises(ValueError, match=r".+"):
        BaseUrl.parse("http", authority)


@given(st.text(max_size=40))
def test_no_host_field_gets_a_dangerous_character_through(authority: str) -> None:
    """Whatever is accepted has letters, digits and little else."""
    try:
        url = BaseUrl.parse("http", authority)
    except ValueError:
        return
    assert re.fullmatch(r"[a-z0-9._:\[\]-]+", url.authority)


@given(st.text(max_size=60))
def test_no_query_gets_a_dangerous_character_through(value: str) -> None:
    """Neither as a host that is not to be proxied, nor as a door or a fingerprint."""
    for query in (value, f"no_proxy={value}", f"door={value}", f"fp={value}"):
        try:
            options = SetupOptions.parse(query)
        except ValueError:
            continue
        assert HARMLESS.fullmatch(options.query())


@pytest.mark.parametrize("entry", HOSTILE)
def test_what_is_no_host_or_network_is_not_excepted(entry: str) -> None:
    """The error shows it; the list goes into the environment of daemons."""
    if entry == "a&b":
        entry = "a%26b"
    with pytest.raises(ValueError, match=r"no_proxy|known|given"):
        SetupOptions.parse(f"no_proxy=ok.lan,{entry.replace('#', '%23').replace('+', '%2b')}")


def test_all_that_no_proxy_may_hold() -> None:
    """Names, their ends, addresses, networks, ports; each once, in the order given."""
    text = "a.lan,.lan,*.lan,10.0.0.0/8,10.1.2.3,2001:db8::/32,a.lan:5000,A.lan, b.lan ,*"
    assert SetupOptions.parse(f"no_proxy={text}").exceptions == (
        *("a.lan", ".lan", "*.lan", "10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "a.lan:5000", "b.lan", "*"),
    )


def test_too_long_a_list_is_refused() -> None:
    """A network says it shorter."""
    with pytest.raises(ValueError, match="more than 64"):
        SetupOptions.parse("no_proxy=" + ",".join(f"h{n}.lan" for n in range(65)))


@pytest.mark.parametrize(
    "text", ["ab" * 32, "AB" * 32, "sha256:" + "ab" * 32, ":".join(["AB"] * 32), "sha256:" + ":".join(["ab"] * 32)]
)
def test_a_fingerprint_is_read_in_each_common_form(text: str) -> None:
    """As openssl prints it, as a digest, or bare."""
    assert SetupOptions.parse(f"fp={text}").fingerprint == "ab" * 32


@pytest.mark.parametrize(
    "query", ["fp=ab", "fp=" + "zz" * 32, "fp=sha1:" + "ab" * 32, "door=window", "x=1", "door=proxy&door=mirror"]
)
def test_a_wrong_query_is_refused(query: str) -> None:
    """A typing error must not set something else up than was meant."""
    with pytest.raises(ValueError, match=r".+"):
        SetupOptions.parse(query)


def test_a_query_is_written_as_it_was_read() -> None:
    """The script names its own address, by which it can be had again."""
    query = "?door=mirror&no_proxy=.lan,10.0.0.0/8&fp=" + "ab" * 32
    assert SetupOptions.parse(query[1:]).query() == query
    assert SetupOptions.parse("").query() == ""


def test_the_clients_have_names_of_their_own() -> None:
    """And each is found by it."""
    names = [client.name for client in CLIENTS]
    assert len(set(names)) == len(names)
    assert [find_client(name) for name in names] == list(CLIENTS)
    assert find_client("windows") is None
    assert {client.name: client.best_door for client in CLIENTS}["docker"] is None
    assert {client.name: client.best_door for client in CLIENTS}["podman"] is SetupDoor.MIRROR


def test_registries_are_named_as_clients_name_them() -> None:
    """Docker Hub by its short name and first; patterns for many hosts, exceptions and token servers are not named."""
    listed = patterns(
        "quay.io", "*.lan", ".corp", "http://reg.lan:5000", "-ghcr.io", "auth.docker.io", "quay.io", "[::1]:5000"
    )
    assert client_registries(listed) == (HUB, "quay.io", "reg.lan:5000", "[::1]:5000")


def test_without_docker_hub_another_registry_is_tested() -> None:
    """The operator may have taken it out."""
    assert registry_to_test(client_registries(patterns("quay.io"))) == HUB_API
    assert registry_to_test(client_registries(patterns("quay.io", f"-{HUB_API}"))) == "quay.io"
    assert registry_to_test(()) == HUB_API
