"""Names of repositories, tags and registries."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.names import Registry, normalise_host, parse_authority, parse_repository_name, parse_tag


@pytest.mark.parametrize(
    "name",
    ["alpine", "library/alpine", "a/b/c/d", "foo__bar", "foo---bar", "0x0/a.b_c-d", "blobs/manifests/tags", "a" * 255],
)
def test_names_of_the_specification_are_accepted(name: str) -> None:
    """A name within the grammar is returned unchanged."""
    assert parse_repository_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("Library/alpine", id="upper case"),
        pytest.param("/alpine", id="slash first"),
        pytest.param("alpine/", id="slash last"),
        pytest.param("a//b", id="empty component"),
        pytest.param("..", id="parent directory"),
        pytest.param("a/../b", id="dot segments"),
        pytest.param("a___b", id="three underscores"),
        pytest.param("a._b", id="mixed separators"),
        pytest.param("-a", id="separator first"),
        pytest.param("a-", id="separator last"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("a\n", id="newline at the end"),
        pytest.param("ä", id="not ASCII"),
        pytest.param("a" * 256, id="256 characters"),
    ],
)
def test_names_outside_the_grammar_are_refused(name: str) -> None:
    """Anything else raises ValueError that calls itself a repository name."""
    with pytest.raises(ValueError, match="repository name"):
        parse_repository_name(name)


def test_a_hostile_name_is_judged_at_once() -> None:
    """The grammar has no exponential case: a name that fails at its last character is refused like any other."""
    with pytest.raises(ValueError, match="lower-case components"):
        parse_repository_name("a-" * 100 + "a!")


@pytest.mark.parametrize("tag", ["latest", "3.20", "_", "V1.2-rc_1", "sha256-" + "a" * 64, "x" * 128])
def test_tags_of_the_specification_are_accepted(tag: str) -> None:
    """A tag within the grammar is returned unchanged."""
    assert parse_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".hidden", "-flag", "a b", "a/b", "a:b", "x" * 129, "ünstable", "latest\n"])
def test_tags_outside_the_grammar_are_refused(tag: str) -> None:
    """Anything else raises ValueError that calls itself a tag."""
    with pytest.raises(ValueError, match="tag"):
        parse_tag(tag)


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("quay.io", "quay.io", 443, "quay.io"),
        ("Quay.IO.", "quay.io", 443, "quay.io"),
        ("quay.io:443", "quay.io", 443, "quay.io"),
        ("localhost:5000", "localhost", 5000, "localhost:5000"),
        ("my_registry:80", "my_registry", 80, "my_registry:80"),
        ("10.0.0.5:5000", "10.0.0.5", 5000, "10.0.0.5:5000"),
        ("[::1]:5000", "::1", 5000, "[::1]:5000"),
        ("[2001:DB8:0::1]", "2001:db8::1", 443, "[2001:db8::1]"),
    ],
)
def test_a_registry_has_one_spelling(text: str, host: str, port: int, shown: str) -> None:
    """Case, a final dot, the default port and long IPv6 forms do not make another registry."""
    registry = Registry.parse(text)

    assert registry == Registry(host, port)
    assert str(registry) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":5000",
        "quay.io:",
        "quay.io:0",
        "quay.io:65536",
        "quay.io:999999",
        "quay.io:\u0665",
        "https://quay.io",
        "quay.io/library",
        "user@quay.io",
        "a..b",
        "-a.io",
        "a b",
        "quay.io\n",
        "q\u2028ay.io",
        "::1",
        "[::1",
        "[fe80::1%eth0]",
        "[quay.io]",
        "a" * 64 + ".io",
        ".".join(["a" * 60] * 5),
    ],
    ids=ascii,
)
def test_what_is_no_registry_is_refused(text: str) -> None:
    """Schemes, paths, user names, bad ports and bad hosts raise ValueError."""
    with pytest.raises(ValueError, match=r"\w+"):
        Registry.parse(text)


def test_a_registry_is_only_made_in_normal_form() -> None:
    """The constructor refuses a spelling that would compare unequal to the same registry."""
    with pytest.raises(ValueError, match=r"use Registry\.parse"):
        Registry("Quay.io")


def test_an_impossible_port_is_refused_by_the_constructor() -> None:
    """A port that no TCP connection can have never gets into a registry."""
    with pytest.raises(ValueError, match="between 1 and 65535"):
        Registry("quay.io", 0)


def test_an_unwritten_port_can_be_told_from_a_written_one() -> None:
    """Reading host and port keeps the difference that a registry does not."""
    assert parse_authority("quay.io") == ("quay.io", None)
    assert parse_authority("quay.io:443") == ("quay.io", 443)


@given(st.text(alphabet=string.printable + "äß\u0660\x00"))
def test_registries_round_trip_or_raise_value_errors(text: str) -> None:
    """Whatever the text, parsing gives a registry whose text form means the same registry, or ValueError."""
    try:
        registry = Registry.parse(text)
    except ValueError:
        return
    assert Registry.parse(str(registry)) == registry


@given(st.ip_addresses())
def test_every_ip_address_is_a_host(address: object) -> None:
    """Each IP address is accepted and is its own normal form."""
    assert normalise_host(str(address)) == str(address)


@pytest.mark.parametrize(
    "text", ["Bücher.example", "bu\u0308cher.example.", "XN--BCHER-KVA.example", "xn--bcher-kva.example"]
)
def test_an_internationalised_name_has_one_spelling(text: str) -> None:
    """However it is written, it is the A-label that DNS and certificates have (RFC 5891)."""
    assert Registry.parse(text).host == "xn--bcher-kva.example"
