"""Interception: which hosts a pattern covers, and which it must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.interception import BUILT_IN_HOSTS, HostPattern, find_pattern, is_intercepted


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("quay.io", "quay.io", 443),
        ("quay.io", "quay.io", 5000),
        ("Quay.IO.", "qUAY.io", 443),
        ("quay.io", "quay.io.", 443),
        ("https://quay.io/", "quay.io", 443),
        ("reg.example.com:5000", "reg.example.com", 5000),
        ("http://reg.example.com:5000", "reg.example.com", 5000),
        ("*.example.com", "a.example.com", 443),
        ("*.example.com", "a.b.example.com", 443),
        (".example.com", "example.com", 443),
        (".example.com", "a.b.example.com", 443),
        ("registry.*", "registry.com", 443),
        ("registry.*", "registry.example.org", 443),
        ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu-west-1.amazonaws.com", 443),
        ("*-docker.pkg.dev", "europe-west3-docker.pkg.dev", 443),
        ("*.example.com:8443", "a.example.com", 8443),
        ("10.0.0.5:5000", "10.0.0.5", 5000),
        ("[::1]:5000", "::1", 5000),
        ("[::1]", "[0:0::1]", 443),
    ],
)
def test_a_pattern_covers_its_hosts(text: str, host: str, port: int) -> None:
    """Exact hosts, ports, every wildcard form and any spelling of a host match."""
    assert HostPattern.parse(text).matches(host, port)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("quay.io", "quay.io.evil.com", 443),
        ("quay.io", "notquay.io", 443),
        ("quay.io", "quayxio", 443),
        ("quay.io", "cdn.quay.io", 443),
        ("reg.example.com:5000", "reg.example.com", 443),
        ("*.example.com", "example.com", 443),
        ("*.example.com", "notexample.com", 443),
        ("*.example.com", ".example.com", 443),
        (".example.com", "notexample.com", 443),
        ("registry.*", "registry", 443),
        ("registry.*", "myregistry.com", 443),
        ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.a.b.amazonaws.com", 443),
        ("*.dkr.ecr.*.amazonaws.com", "dkr.ecr.eu.amazonaws.com", 443),
        ("*-docker.pkg.dev", "a.b-docker.pkg.dev", 443),
        ("10.0.0.5", "10x0.0.5", 443),
        ("quay.io", "quay.io\n", 443),
        ("quay.io", "user@quay.io", 443),
        ("quay.io", "", 443),
    ],
    ids=ascii,
)
def test_a_pattern_covers_no_other_host(text: str, host: str, port: int) -> None:
    """Look-alikes, other depths, other ports and malformed hosts do not match."""
    assert not HostPattern.parse(text).matches(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.*",
        ".*",
        "**",
        ".",
        "a b",
        "quay.io/library",
        "user:password@quay.io",
        "ftp://quay.io",
        "quay.io:0",
        "quay.io:65536",
        "quay.io:port",
        "*.example.com:99999",
        "::1",
        "[*]",
        "*..com",
        "*.a-",
        "quay.io\n",
    ],
    ids=ascii,
)
def test_an_entry_that_is_no_host_is_refused(text: str) -> None:
    """Malformed entries, and those that would intercept the whole internet, raise ValueError."""
    with pytest.raises(ValueError, match=r"\w+"):
        HostPattern.parse(text)


@pytest.mark.parametrize(
    ("text", "plain_http"), [("http://reg:5000", True), ("HTTP://reg", True), ("https://reg", False), ("reg", False)]
)
def test_only_an_explicit_scheme_turns_tls_off(text: str, *, plain_http: bool) -> None:
    """An upstream is spoken to in plain http only when the entry says http."""
    assert HostPattern.parse(text).plain_http is plain_http


@pytest.mark.parametrize("text", ["quay.io", "reg:5000", "*.example.com", "[::1]:5000", "http://reg:5000", ".a.b:1"])
def test_a_pattern_reads_back(text: str) -> None:
    """The text form of a pattern is the entry it came from."""
    assert str(HostPattern.parse(text)) == text


def test_patterns_are_compared_by_meaning() -> None:
    """Two spellings of one entry are equal and have one hash."""
    assert {HostPattern.parse("Quay.IO."), HostPattern.parse("https://quay.io/")} == {HostPattern("quay.io")}


@pytest.mark.parametrize(
    ("text", "wildcard"), [("quay.io", False), ("*.quay.io", True), (".quay.io", True), ("a.*", True)]
)
def test_wildcards_name_no_single_host(text: str, *, wildcard: bool) -> None:
    """A pattern knows whether it stands for one host or for many."""
    assert HostPattern.parse(text).is_wildcard is wildcard


@pytest.mark.parametrize("host", BUILT_IN_HOSTS)
def test_docker_hub_is_always_intercepted(host: str) -> None:
    """The built-in hosts are intercepted without any configuration, in any case."""
    assert is_intercepted(host.upper(), 443, ())


def test_only_listed_hosts_are_intercepted() -> None:
    """A listed host is intercepted, another host is not, and a malformed one never is."""
    patterns = [HostPattern.parse("quay.io"), HostPattern.parse("reg:5000")]

    assert is_intercepted("reg", 5000, patterns)
    assert not is_intercepted("reg", 443, patterns)
    assert not is_intercepted("example.com", 443, patterns)
    assert not is_intercepted("qu\x00ay.io", 443, patterns)


@pytest.mark.parametrize("order", [1, -1])
def test_an_exception_wins_over_every_entry(order: int) -> None:
    """Wherever it stands in the list, and over the built-in hosts, too."""
    patterns = [
        HostPattern.parse("*.test"),
        HostPattern("auth.docker.io", tunnelled=True),
        HostPattern("a.test", 5000, tunnelled=True),
    ][::order]

    assert is_intercepted("b.test", 443, patterns)
    assert is_intercepted("a.test", 443, patterns)
    assert not is_intercepted("a.test", 5000, patterns)
    assert not is_intercepted("auth.docker.io", 443, patterns)
    assert find_pattern("auth.docker.io", 443, patterns) is None


def test_the_first_entry_of_a_host_speaks_for_it() -> None:
    """When several entries cover a host, the one listed first gives the scheme."""
    first, second = HostPattern.parse("http://reg:5000"), HostPattern.parse("reg")

    assert find_pattern("reg", 5000, [first, second]) is first
    assert find_pattern("reg", 443, [first, second]) is second
    assert find_pattern("other", 443, [first, second]) is None


@given(st.text(alphabet="ab.*-:/[]@1 \n") | st.text(), st.text(alphabet="ab.-") | st.text())
def test_no_text_raises_anything_but_value_errors(text: str, host: str) -> None:
    """Whatever the entry it parses or raises ValueError, and whatever the host it matches or does not."""
    try:
        pattern = HostPattern.parse(text)
    except ValueError:
        return
    assert pattern.matches(host, 443) in (True, False)
    assert HostPattern.parse(str(pattern)) == pattern
