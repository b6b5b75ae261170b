"""regproxy.store.intervals against a plain set of positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.store.intervals import Intervals

SPANS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair)))


def _filled(spans: list[tuple[int, int]]) -> tuple[Intervals, set[int]]:
    intervals, positions = Intervals(), set[int]()
    for start, end in spans:
        intervals = intervals.add(start, end)
        positions |= set(range(start, end))
    return intervals, positions


@given(st.lists(SPANS, max_size=12))
def test_the_set_holds_exactly_the_bytes_that_were_added(spans: list[tuple[int, int]]) -> None:
    """Order and overlap of the additions do not matter, and the spans stay ordered and apart."""
    intervals, positions = _filled(spans)

    assert {position for start, end in intervals.spans for position in range(start, end)} == positions
    assert Intervals(intervals.spans) == intervals
    assert intervals.total_bytes() == len(positions)
    assert intervals.end() == max(positions, default=-1) + 1


@given(st.lists(SPANS, max_size=12))
def test_the_prefix_ends_at_the_first_hole(spans: list[tuple[int, int]]) -> None:
    """Readers see what is there from offset 0 without a hole, and nothing behind it."""
    intervals, positions = _filled(spans)

    assert intervals.prefix_bytes() == next(position for position in range(50) if position not in positions)


@given(st.lists(SPANS, max_size=12), SPANS)
def test_the_holes_are_what_is_not_there(spans: list[tuple[int, int]], window: tuple[int, int]) -> None:
    """Filling the reported holes of a window completes the window."""
    intervals, positions = _filled(spans)

    holes = intervals.missing(*window)

    assert {position for start, end in holes for position in range(start, end)} == set(range(*window)) - positions
    assert all(start < end for start, end in holes)


@pytest.mark.parametrize(
    "spans",
    [((5, 5),), ((5, 3),), ((-1, 3),), ((0, 3), (3, 5)), ((4, 6), (0, 2)), ((0, 4), (2, 6))],
    ids=["empty", "backwards", "negative", "touching", "unordered", "overlapping"],
)
def test_spans_that_are_not_a_set_are_refused(spans: tuple[tuple[int, int], ...]) -> None:
    """A sidecar that was tampered with cannot become an interval set."""
    with pytest.raises(ValueError, match="byte intervals"):
        Intervals(spans)


def test_a_backwards_interval_is_refused() -> None:
    """An interval that ends before it starts is a mistake of the caller."""
    with pytest.raises(ValueError, match="no such byte interval: 5-3"):
        Intervals().add(5, 3)
