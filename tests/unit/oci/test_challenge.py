"""Challenges: what real registries send, and what hostile ones might."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.challenge import Challenge, parse_challenges

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/alpine:pull,push"'
)


def test_docker_hub_is_understood() -> None:
    """A comma inside the quoted scope does not end the parameter."""
    assert parse_challenges([HUB]) == [
        Challenge(
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/alpine:pull,push",
            },
        )
    ]


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        pytest.param([], [], id="none"),
        pytest.param([""], [], id="empty"),
        pytest.param(["Basic"], [Challenge("basic", {})], id="scheme alone"),
        pytest.param(["BASIC REALM=x"], [Challenge("basic", {"realm": "x"})], id="case and token value"),
        pytest.param(['Basic realm=""'], [Challenge("basic", {"realm": ""})], id="empty value"),
        pytest.param(
            ['Basic realm="a", Bearer realm="b", service=c'],
            [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b", "service": "c"})],
            id="two in one field",
        ),
        pytest.param(
            ["Basic realm=a", "Bearer realm=b"],
            [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b"})],
            id="two fields",
        ),
        pytest.param(
            ["Negotiate, Basic realm=a"],
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "a"})],
            id="scheme alone before another",
        ),
        pytest.param(
            ["Negotiate YWJj==, Basic realm=a"],
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "a"})],
            id="token68",
        ),
        pytest.param([r'Basic realm="a \"b\" \\c"'], [Challenge("basic", {"realm": r'a "b" \c'})], id="quoted pairs"),
        pytest.param(
            ['Bearer realm = "a" , service\t=\tb'],
            [Challenge("bearer", {"realm": "a", "service": "b"})],
            id="blanks around equals signs",
        ),
        pytest.param([",, Basic realm=a,,"], [Challenge("basic", {"realm": "a"})], id="empty elements"),
        pytest.param(["Basic realm=a, realm=b"], [Challenge("basic", {"realm": "a"})], id="repeated parameter"),
        pytest.param(
            ["Bearer realm=https://x.io/token,scope=repository:a/b:pull"],
            [Challenge("bearer", {"realm": "https://x.io/token", "scope": "repository:a/b:pull"})],
            id="unquoted URL",
        ),
        pytest.param(['"quoted, comma", Basic realm=a'], [Challenge("basic", {"realm": "a"})], id="garbage first"),
        pytest.param(["@, Basic realm=a"], [Challenge("basic", {"realm": "a"})], id="odd character first"),
        pytest.param(
            ['Bearer realm="a",scope="never closed'], [Challenge("bearer", {"realm": "a"})], id="unclosed quote"
        ),
        pytest.param(['"ends in a backslash\\'], [], id="backslash last"),
    ],
)
def test_fields_become_challenges(headers: list[str], challenges: list[Challenge]) -> None:
    """Every readable challenge is found in order, with lower-case names, and garbage is skipped."""
    assert parse_challenges(headers) == challenges


@given(st.lists(st.text(alphabet='Basic ="\\,\t\n=a') | st.text()))
def test_no_field_raises_or_hangs(headers: list[str]) -> None:
    """Whatever the fields, parsing ends, and every scheme is a lower-case word."""
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower() != ""


_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), _VALUES, max_size=4))
def test_quoted_values_survive(params: dict[str, str]) -> None:
    """Any printable value, properly quoted, is read back as it was."""
    quoted = ", ".join(
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in params.items()
    )

    assert parse_challenges([f"Bearer {quoted}"]) == [Challenge("bearer", params)]


def test_an_oversized_field_is_cut() -> None:
    """A field beyond 8 KiB costs bounded time: its start is read and what follows is not."""
    assert parse_challenges(["Basic realm=a" + "," * 10_000 + "Bearer realm=b"]) == [Challenge("basic", {"realm": "a"})]
