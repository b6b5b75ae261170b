"""What a token server's answer means."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.origin.token_answers import DEFAULT_LIFETIME_S, MAX_LIFETIME_S, IssuedToken, parse_token_answer

NOW_S = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def parse(**answer: object) -> IssuedToken:
    return parse_token_answer(json.dumps(answer).encode(), NOW_S)


@pytest.mark.parametrize(
    ("answer", "token"),
    [
        ({"token": "a"}, "a"),
        ({"access_token": "b"}, "b"),
        ({"token": "a", "access_token": "b"}, "a"),
        ({"token": "", "access_token": "b"}, "b"),
        ({"token": None, "access_token": "b"}, "b"),
        ({"token": "djE6Og==", "more": {}}, "djE6Og=="),
    ],
)
def test_a_token_has_two_names(answer: dict[str, object], token: str) -> None:
    """The specification's and OAuth2's."""
    assert parse(**answer).token == token


@pytest.mark.parametrize("token", ["", "a b", "a\n", "\u00e9", 5, None, ["a"]])
def test_what_a_field_cannot_carry_is_no_token(token: object) -> None:
    """It would end up in a request's head."""
    with pytest.raises(ValueError, match="no token"):
        parse(token=token)


@pytest.mark.parametrize(
    ("expires_in", "issued_at", "lifetime_s"),
    [
        (None, None, DEFAULT_LIFETIME_S),
        (300, None, 300),
        (300.5, None, 300.5),
        (0, None, DEFAULT_LIFETIME_S),
        (-5, None, DEFAULT_LIFETIME_S),
        (True, None, DEFAULT_LIFETIME_S),
        ("300", None, DEFAULT_LIFETIME_S),
        (10**9, None, MAX_LIFETIME_S),
        (10**400, None, MAX_LIFETIME_S),
        (300, "2023-11-14T22:13:20Z", 300),
        (300, "2023-11-14T22:12:20Z", 240),
        (300, "2023-11-14T22:12:20.123456789Z", 240.123456),
        (300, "2023-11-14T22:12:20", 240),
        (300, "2020-01-01T00:00:00Z", 300),
        (300, "2030-01-01T00:00:00Z", 300),
        (300, "yesterday", 300),
        (300, "0001-01-01T00:00:00+23:59", 300),
        (300, 7, 300),
    ],
)
def test_a_lifetime_is_what_the_server_says_within_reason(
    expires_in: object, issued_at: object, lifetime_s: float
) -> None:
    """A clock that is far off is not believed."""
    assert parse(token="a", expires_in=expires_in, issued_at=issued_at).lifetime_s == pytest.approx(
        lifetime_s, abs=1e-3
    )


def test_a_token_is_not_shown() -> None:
    """Its text is in no repr."""
    assert "hunter2" not in repr(parse(token="hunter2"))


@given(st.binary())
def test_nothing_breaks_it(body: bytes) -> None:
    """Any body is a token or a ValueError."""
    try:
        issued = parse_token_answer(body, NOW_S)
    except ValueError:
        return
    assert 0 < issued.lifetime_s <= MAX_LIFETIME_S


@given(
    st.one_of(st.integers(), st.floats(), st.text(), st.none()),
    st.one_of(st.text(), st.datetimes().map(str), st.none()),
)
def test_a_lifetime_is_never_past_or_endless(expires_in: object, issued_at: object) -> None:
    """Whatever the server says, a number of any size included."""
    assert 0 < parse(token="a", expires_in=expires_in, issued_at=issued_at).lifetime_s <= MAX_LIFETIME_S
