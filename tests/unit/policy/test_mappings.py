"""Upstream mappings: the operator's own name resolution."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.mappings import UpstreamMapping, find_mapping


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("reg.example.com=10.0.0.5", UpstreamMapping("reg.example.com", "10.0.0.5", None)),
        ("reg.example.com=127.0.0.1:5443", UpstreamMapping("reg.example.com", "127.0.0.1", 5443)),
        ("Reg.Example.com.=Other.Host:1", UpstreamMapping("reg.example.com", "other.host", 1)),
        ("reg=[::1]", UpstreamMapping("reg", "::1", None)),
        ("reg=[FD00::5]:5443", UpstreamMapping("reg", "fd00::5", 5443)),
        (" reg = 10.0.0.5 ", UpstreamMapping("reg", "10.0.0.5", None)),
    ],
)
def test_a_mapping_is_read(text: str, mapping: UpstreamMapping) -> None:
    """Name, address and the optional port are taken apart and normalised."""
    assert UpstreamMapping.parse(text) == mapping


@pytest.mark.parametrize(
    "text",
    [
        "",
        "reg",
        "reg=",
        "=10.0.0.5",
        "reg:443=10.0.0.5",
        "reg=a=b",
        "reg=::1",
        "reg=host:0",
        "reg=host:x",
        "*.a=b",
        "reg=http://h",
    ],
)
def test_a_malformed_mapping_is_refused(text: str) -> None:
    """Anything but name=address[:port] raises ValueError."""
    with pytest.raises(ValueError, match=r"\w+"):
        UpstreamMapping.parse(text)


@given(st.text(alphabet="ab.=:[]1 ") | st.text())
def test_no_text_raises_anything_but_value_errors(text: str) -> None:
    """Whatever the text, it is a mapping that finds its own name, or a ValueError."""
    try:
        mapping = UpstreamMapping.parse(text)
    except ValueError:
        return
    assert find_mapping(mapping.name, [mapping]) is mapping


def test_a_host_finds_its_first_mapping_in_any_spelling() -> None:
    """Case and a final dot do not hide a mapping; other hosts and malformed ones have none."""
    first, second = UpstreamMapping("reg", "10.0.0.1"), UpstreamMapping("reg", "10.0.0.2")

    assert find_mapping("REG.", [first, second]) is first
    assert find_mapping("other", [first, second]) is None
    assert find_mapping("bad host", [first, second]) is None
