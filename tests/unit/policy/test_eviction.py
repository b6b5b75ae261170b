"""Eviction: enough, oldest first, and no more than needed."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.eviction import choose_victims

_SIZES = st.lists(st.integers(0, 100))


@given(_SIZES, st.integers(-10, 1000))
def test_victims_free_enough_or_everything(sizes: list[int], excess_bytes: int) -> None:
    """What is evicted frees the excess, unless all there is does not."""
    victims = choose_victims(enumerate(sizes), excess_bytes)

    assert sum(sizes[key] for key in victims) >= min(excess_bytes, sum(sizes))


@given(_SIZES, st.integers(1, 1000))
def test_no_victim_is_needless(sizes: list[int], excess_bytes: int) -> None:
    """Without the last victim, the excess would not have been freed."""
    victims = choose_victims(enumerate(sizes), excess_bytes)

    assert sum(sizes[key] for key in victims[:-1]) < excess_bytes


@given(_SIZES, st.integers(0, 1000))
def test_the_oldest_go_first(sizes: list[int], excess_bytes: int) -> None:
    """An entry is kept only if every entry used after it is kept too; empty entries are never victims."""
    victims = choose_victims(enumerate(sizes), excess_bytes)
    with_content = [key for key, size_bytes in enumerate(sizes) if size_bytes]

    assert victims == with_content[: len(victims)]


def test_nothing_is_evicted_under_the_cap() -> None:
    """Without an excess there is no victim."""
    assert choose_victims([("a", 5)], 0) == []
    assert choose_victims([("a", 5)], -1) == []


def test_no_more_entries_are_read_than_needed() -> None:
    """A long list of entries is not walked to its end when its start suffices."""
    read: list[str] = []

    def entries() -> Iterator[tuple[str, int]]:
        for key in "abc":
            read.append(key)
            yield key, 10

    assert choose_victims(entries(), 15) == ["a", "b"]
    assert read == ["a", "b"]
