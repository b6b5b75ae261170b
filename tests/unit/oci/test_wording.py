"""Text in error messages: one bounded line."""

from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.wording import MAX_SHOWN_CHARACTERS, shown


def test_control_characters_are_escaped() -> None:
    """A line break in hostile text cannot start a new log line."""
    assert shown("a\r\nb\x1b[31m") == r"'a\r\nb\x1b[31m'"


@given(st.text(max_size=400))
def test_shown_text_is_one_printable_line(text: str) -> None:
    """Whatever the text, its shown form has only printable characters."""
    assert shown(text).isprintable()


def test_long_text_is_cut() -> None:
    """A message stays short when its subject is long."""
    assert shown("x" * 10_000) == repr("x" * MAX_SHOWN_CHARACTERS + "...")
