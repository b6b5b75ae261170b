"""Variables in compose files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.cli.interpolation import interpolated, parse_env

SET = {"SET": "value", "EMPTY": "", "OTHER": "other"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain:1", "plain:1"),
        ("$SET/x", "value/x"),
        ("${SET}x", "valuex"),
        ("$NONE.", "."),
        ("$$SET $${SET}", "$SET ${SET}"),
        ("${NONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY-default}", ""),
        ("${NONE-default}", "default"),
        ("${SET:-default}", "value"),
        ("${SET:+instead}", "instead"),
        ("${EMPTY:+instead}", ""),
        ("${EMPTY+instead}", "instead"),
        ("${NONE+instead}", ""),
        ("${SET:?gone}", "value"),
        ("${EMPTY?gone}", ""),
        ("${NONE:-${OTHER}}", "other"),
        ("${NONE:-a${NONE:-${SET}}b}c", "avaluebc"),
        ("${NONE:-quay.io:5000/x@y}", "quay.io:5000/x@y"),
    ],
)
def test_variables_are_put_in(text: str, expected: str) -> None:
    """By the table of the Compose specification."""
    assert interpolated(text, SET) == expected


@pytest.mark.parametrize("text", ["$", "$1", "${", "${}", "${SET!x}", "${NONE:?}", "${EMPTY:?gone}", "${A:-${B}"])
def test_what_is_wrong_is_an_error(text: str) -> None:
    """Compose refuses these as well."""
    with pytest.raises(ValueError, match=r"\S"):
        interpolated(text, SET)


def test_depth_has_an_end() -> None:
    """A thousand defaults in one another are an error, and no crash."""
    with pytest.raises(ValueError, match="deep"):
        interpolated("${A:-" * 1000 + "}" * 1000, {})


@given(st.text(alphabet="$${}:-?+AB_1 x"))
def test_any_text_is_read_or_refused(text: str) -> None:
    """With nothing but ValueError, and without a dollar sign as it is."""
    try:
        found = interpolated(text, {"A": "a"})
    except ValueError:
        return

    assert "$" in text or found == text


def test_an_env_file_is_read() -> None:
    """Quotes, comments, `export`; the rest is passed over."""
    text = "# c\nA=1\nexport B = two # c\nC='a # b'\nD=\"x\" # c\nE=\nbroken\nF=a#b\n"

    assert parse_env(text) == {"A": "1", "B": "two", "C": "a # b", "D": "x", "E": "", "F": "a#b"}
