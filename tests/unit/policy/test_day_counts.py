"""The counters of days: they add up, are bounded, and come back from their text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.day_counts import KEPT_DAYS, DayCounts, History, day_of

_COUNT = st.integers(0, 2**60)
_COUNTS = st.builds(DayCounts, _COUNT, _COUNT, _COUNT, _COUNT, _COUNT)


@given(st.dictionaries(st.integers(0, 10**6), _COUNTS, max_size=KEPT_DAYS), st.floats(0, 1e10))
def test_a_history_comes_back_from_its_text(days: dict[int, DayCounts], since_s: float) -> None:
    """To the last count."""
    assert History.from_json(History(since_s, days).to_json()) == History(since_s, days)


@given(st.text() | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))
def test_any_other_text_is_an_error(text: str) -> None:
    """And no other exception: the file may have been anything."""
    with pytest.raises(ValueError):  # noqa: PT011 - JSON has words of its own
        History.from_json(text)


@pytest.mark.parametrize(
    "told",
    [
        {"form": 2, "since_s": 0, "days": {}},
        {"form": 1, "days": {}},
        {"form": 1, "since_s": 0, "days": {"today": {}}},
        {"form": 1, "since_s": 0, "days": {"1": {"hits": 1}}},
        {
            "form": 1,
            "since_s": 0,
            "days": {"1": {"hits": -1, "misses": 0, "served_bytes": 0, "fetched_bytes": 0, "errors": 0}},
        },
        {
            "form": 1,
            "since_s": 0,
            "days": {"1": {"hits": True, "misses": 0, "served_bytes": 0, "fetched_bytes": 0, "errors": 0}},
        },
    ],
    ids=["later form", "no beginning", "no day", "too few", "negative", "no number"],
)
def test_a_text_that_is_nearly_right_is_an_error(told: object) -> None:
    """No number is made up."""
    with pytest.raises(ValueError, match=r"day counts|invalid literal"):
        History.from_json(json.dumps(told))


def test_old_days_are_forgotten() -> None:
    """A year of days is a month of memory; a day that is asked for again goes on."""
    history = History(0)
    for number in range(365):
        history.day(number).hits += 1
    history.day(364).hits += 1

    assert sorted(history.days) == list(range(365 - KEPT_DAYS, 365))
    assert history.sum_of(range(360, 370)).hits == 6


def test_saved_is_what_no_registry_had_to_send() -> None:
    """Not negative: a download may be larger than what its clients took of it."""
    assert DayCounts(served_bytes=10, fetched_bytes=4).saved_bytes == 6
    assert DayCounts(served_bytes=4, fetched_bytes=10).saved_bytes == 0


def test_the_hit_ratio_needs_reads() -> None:
    """Nothing of nothing is no ratio."""
    assert DayCounts().hit_ratio is None
    assert DayCounts(hits=3, misses=1).hit_ratio == 0.75


def test_days_are_those_of_utc() -> None:
    """Midnight begins one."""
    assert (day_of(86399.9), day_of(86400)) == (0, 1)
