"""Forecasts: straight lines, and silence where too little was seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.forecast import (
    SHORTEST_LOOK_S,
    SHORTEST_QUOTA_LOOK_S,
    Cause,
    Left,
    Outlook,
    eviction_horizon,
    fill_bytes_per_s,
    quota_forecast,
)

FAR_S = 100_000.0
GIB = 1024**3


def test_a_quota_that_is_used_evenly_runs_out_in_time() -> None:
    """Ten in 600 s: the ninety that are left do for 5400 s more."""
    forecast = quota_forecast([Left(0, 100), Left(300, 95), Left(600, 90)], FAR_S)

    assert forecast == (Outlook.RUNS_OUT, 600 + 5400)


def test_it_lasts_when_it_is_filled_up_before() -> None:
    """The same use, and a window that ends before."""
    assert quota_forecast([Left(0, 100), Left(600, 90)], 5999) == (Outlook.LASTS, None)


def test_what_is_not_used_lasts() -> None:
    """And does not run out at infinity."""
    assert quota_forecast([Left(0, 100), Left(600, 100)], FAR_S).outlook is Outlook.LASTS


def test_what_was_seen_before_it_was_filled_up_says_nothing() -> None:
    """The use of the earlier window is not that of this one."""
    seen = [Left(0, 100), Left(600, 10), Left(700, 100), Left(1000, 70)]

    assert quota_forecast(seen, FAR_S) == (Outlook.RUNS_OUT, 1000 + 700)


@pytest.mark.parametrize("seen", [[], [Left(0, 50)], [Left(0, 50), Left(SHORTEST_QUOTA_LOOK_S - 1, 40)]])
def test_too_little_is_no_forecast(seen: list[Left]) -> None:
    """One pull is several requests within seconds."""
    assert quota_forecast(seen, FAR_S).outlook is Outlook.UNKNOWN


def test_nothing_left_needs_no_forecast() -> None:
    """It ran out when that was said."""
    assert quota_forecast([Left(7, 0)], FAR_S) == (Outlook.RUNS_OUT, 7)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**6))), st.floats(0, 1e7))
def test_it_runs_out_neither_before_it_was_seen_nor_after_it_is_filled_up(
    seen: list[tuple[float, int]], passes_at_s: float
) -> None:
    """Whatever a registry tells."""
    ordered = [Left(*each) for each in sorted(seen)]
    forecast = quota_forecast(ordered, passes_at_s)
    if forecast.runs_out_at_s is not None:
        assert ordered[-1].seen_at_s <= forecast.runs_out_at_s
        assert forecast.runs_out_at_s < passes_at_s or ordered[-1].remaining == 0


def test_the_first_hour_is_no_rate() -> None:
    """An empty cache fills at once."""
    assert fill_bytes_per_s(GIB, SHORTEST_LOOK_S - 1) is None
    assert fill_bytes_per_s(7200, 7200) == 1


def test_the_oldest_goes_when_the_room_is_used_up() -> None:
    """Two GiB free at one a day; in the long run five GiB are five days."""
    horizon = eviction_horizon(
        GIB / 86400, used_bytes=3 * GIB, room_bytes=2 * GIB, oldest_age_s=0, inactive_s=60 * 86400
    )

    assert horizon.cause is Cause.ROOM
    assert horizon.oldest_goes_in_s == pytest.approx(2 * 86400)
    assert horizon.unread_stays_s == pytest.approx(5 * 86400)


def test_the_oldest_goes_because_it_is_not_read() -> None:
    """Long before the room is used up."""
    horizon = eviction_horizon(1.0, used_bytes=0, room_bytes=GIB, oldest_age_s=50 * 86400, inactive_s=60 * 86400)

    assert (horizon.cause, horizon.oldest_goes_in_s) == (Cause.UNUSED, 10 * 86400)
    assert horizon.unread_stays_s == 60 * 86400


@given(st.floats(0, 1e12), st.integers(0, 10**15), st.integers(-(10**9), 10**15), st.floats(0, 1e9), st.floats(0, 1e9))
def test_no_horizon_is_behind_the_inactive_time(
    rate: float, used_bytes: int, room_bytes: int, oldest_age_s: float, inactive_s: float
) -> None:
    """Nor is one in the past."""
    horizon = eviction_horizon(
        rate, used_bytes=used_bytes, room_bytes=room_bytes, oldest_age_s=oldest_age_s, inactive_s=inactive_s
    )

    assert 0 <= horizon.oldest_goes_in_s <= inactive_s
    assert 0 <= horizon.unread_stays_s <= inactive_s
