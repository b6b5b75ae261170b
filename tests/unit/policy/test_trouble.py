"""Trouble: what an operator should see, in words for everybody."""

import pytest

from regproxy.policy.trouble import in_words, is_trouble


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (200, "", False),
        (200, "the last good copy was served", True),
        (206, "the client went away", True),
        (401, "refused", False),
        (404, "answered 404 a moment ago", False),
        (403, "", True),
        (416, "", False),
        (429, "", True),
        (500, "", True),
        (502, "cannot be reached", True),
        (None, "", True),
    ],
)
def test_what_is_trouble(status: int | None, reason: str, expected: bool) -> None:
    """Logins begin with a 401 and searches for signatures end in a 404: neither is."""
    assert is_trouble(status, reason) is expected


def test_each_has_words_of_its_own() -> None:
    """No two kinds look alike, and what is not known is told by its number."""
    kinds = [in_words(status, is_stale=False) for status in (None, 200, 403, 429, 500, 501, 502, 503, 504)]
    assert len({*kinds, in_words(200, is_stale=True)}) == len(kinds) + 1
    assert "418" in in_words(418, is_stale=False)
