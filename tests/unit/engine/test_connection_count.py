"""How many connections a client may have."""

import resource
from collections.abc import Iterator

import pytest

from regproxy.engine.connection_count import (
    FILES_PER_CONNECTION,
    RESERVED_FILES,
    TOO_MANY,
    TOO_MANY_OF_YOURS,
    ConnectionCount,
    ConnectionLimits,
    limits_of_this_process,
)

ALICE, BOB = "192.0.2.1", "192.0.2.2"


def test_a_client_has_its_own_limit_and_all_have_one() -> None:
    """What ends makes room for another."""
    count = ConnectionCount(ConnectionLimits(3, 2))
    assert [count.begin(ALICE) for _ in range(3)] == [None, None, TOO_MANY_OF_YOURS]
    assert [count.begin(BOB) for _ in range(2)] == [None, TOO_MANY]
    count.end(ALICE)
    assert (count.begin(BOB), len(count)) == (None, 3)
    for each in (ALICE, BOB, BOB):
        count.end(each)
    assert (len(count), count.begin(ALICE)) == (0, None)


def test_zero_is_no_limit() -> None:
    """For one and for all."""
    count = ConnectionCount(ConnectionLimits(0, 0))
    assert [count.begin(ALICE) for _ in range(1000)] == [None] * 1000


def test_a_flood_is_told_in_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """When it begins and, with its number, when it has ended."""
    count = ConnectionCount(ConnectionLimits(0, 1))
    for _ in range(50):
        count.begin(ALICE)
    count.end(ALICE)
    assert caplog.messages == [
        f"{ALICE} has 1 connections and gets no more",
        f"{ALICE} was refused 49 connections and has none left",
    ]


class TestFiles:
    @pytest.fixture(autouse=True)
    def files(self) -> Iterator[None]:
        """Have the soft limit that a login has, and the old one afterwards."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    def test_the_soft_limit_is_raised_as_far_as_needed(self) -> None:
        """1,024 files, the default of a login, are not enough for a thousand connections."""
        wanted = ConnectionLimits(1000, 10)
        assert limits_of_this_process(wanted) == wanted
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == RESERVED_FILES + FILES_PER_CONNECTION * 1000

    @pytest.mark.parametrize("total", [0, 10**9])
    def test_there_are_no_more_connections_than_files(self, total: int) -> None:
        """What the hard limit does not give is refused at the door, not met as an error within a pull."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limits = limits_of_this_process(ConnectionLimits(total, 0))
        if hard != resource.RLIM_INFINITY:
            assert limits.total == (hard - RESERVED_FILES) // FILES_PER_CONNECTION
