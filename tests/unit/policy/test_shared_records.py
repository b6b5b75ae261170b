"""What replicas make of one another's records."""

import pytest

from regproxy.policy.access import NEVER_S, Openness
from regproxy.policy.openers import OpenedBy
from regproxy.policy.shared_records import (
    LEASE_S,
    SKEW_S,
    Answered,
    Lease,
    SharedOpenness,
    Turn,
    known_at_s,
    turn,
)

NOW_S = 1_000_000.0


@pytest.mark.parametrize(
    ("checked_at_s", "lease", "expected"),
    [
        (NOW_S - 9, None, Turn.USE),
        (NOW_S + SKEW_S, None, Turn.USE),
        (NOW_S + SKEW_S + 1, None, Turn.TAKE),
        (NOW_S - 10, None, Turn.TAKE),
        (None, None, Turn.TAKE),
        (None, Lease("b", NOW_S + 1), Turn.WAIT),
        (NOW_S - 10, Lease("b", NOW_S + LEASE_S), Turn.WAIT),
        (NOW_S - 9, Lease("b", NOW_S + 1), Turn.USE),
        (NOW_S - 10, Lease("b", NOW_S), Turn.TAKE),
        (NOW_S - 10, Lease("b", NOW_S + LEASE_S + SKEW_S + 1), Turn.TAKE),
    ],
)
def test_one_replica_takes_the_turn(checked_at_s: float | None, lease: Lease | None, expected: Turn) -> None:
    """Fresh records are used, running leases waited for; an old lease, or one of a broken clock, holds nobody up."""
    assert turn(checked_at_s, lease, 10.0, NOW_S) is expected


def test_nobody_waits_for_a_lease_of_their_own() -> None:
    """What was left of a write without an answer; not of one that is in use."""
    lease = Lease("a", NOW_S + 1)

    assert turn(None, lease, 10.0, NOW_S, unused="a") is Turn.TAKE
    assert turn(None, lease, 10.0, NOW_S, unused="b") is Turn.WAIT
    assert turn(NOW_S - 9, lease, 10.0, NOW_S, unused="a") is Turn.USE


def test_what_another_clock_put_a_little_ahead_has_happened_now() -> None:
    """More than the clocks may differ stays in the future, where nothing is fresh."""
    assert known_at_s(NOW_S + SKEW_S, NOW_S) == NOW_S
    assert known_at_s(NOW_S - 1, NOW_S) == NOW_S - 1
    assert known_at_s(NOW_S + SKEW_S + 1, NOW_S) == NOW_S + SKEW_S + 1


def test_the_newer_answer_counts_and_a_refusal_at_the_same_time() -> None:
    """Whose it is makes no difference."""
    yes, later_no = Answered(5, let_in=True), Answered(6, let_in=False)

    assert yes.or_newer(later_no) == later_no == later_no.or_newer(yes)
    assert yes.or_newer(Answered(5)) == Answered(5) == Answered(5).or_newer(yes)


def test_each_kind_of_answer_has_its_place() -> None:
    """To nobody, to the operator; to a client's own login tells nothing to others."""
    answered = Answered(NOW_S, let_in=True)

    assert SharedOpenness.of_answer(OpenedBy.NOBODY, let_in=True, at_s=NOW_S) == SharedOpenness(public=answered)
    assert SharedOpenness.of_answer(OpenedBy.OPERATOR, let_in=True, at_s=NOW_S) == SharedOpenness(shared=answered)
    assert SharedOpenness.of_answer(OpenedBy.CLIENT, let_in=True, at_s=NOW_S) == SharedOpenness()


def test_what_is_known_is_corrected_by_what_is_newer_only() -> None:
    """Newer answers open and close; older ones change nothing."""
    told = SharedOpenness(Answered(NOW_S - 5, let_in=True), Answered(NOW_S - 5, let_in=False))

    assert told.correct(Openness(), NOW_S) == Openness(NOW_S - 5, NEVER_S)
    assert told.correct(Openness(NOW_S - 9, NOW_S - 9), NOW_S) == Openness(NOW_S - 5, NEVER_S)
    assert told.correct(Openness(NOW_S - 1, NOW_S - 1), NOW_S) == Openness(NOW_S - 1, NOW_S - 1)


def test_an_old_yes_does_not_open_again_what_was_refused_here() -> None:
    """The own refusal is merged with what the bucket says before that counts."""
    refused = SharedOpenness.of_answer(OpenedBy.NOBODY, let_in=False, at_s=NOW_S)
    bucket = SharedOpenness(public=Answered(NOW_S - 5, let_in=True))

    assert bucket.merged(refused).correct(Openness(), NOW_S) == Openness()


def test_what_is_known_to_be_open_can_be_told() -> None:
    """A time is a yes, none is nothing."""
    assert SharedOpenness.of_known(Openness(7.0, NEVER_S)) == SharedOpenness(Answered(7.0, let_in=True), Answered())


@pytest.mark.parametrize(
    ("ours", "stored", "worth"),
    [
        (Answered(20, let_in=True), Answered(), True),
        (Answered(20, let_in=True), Answered(19, let_in=True), False),
        (Answered(20, let_in=True), Answered(10, let_in=True), True),
        (Answered(20, let_in=False), Answered(19, let_in=True), True),
        (Answered(20, let_in=False), Answered(21, let_in=True), False),
    ],
)
def test_only_news_are_written(ours: Answered, stored: Answered, worth: bool) -> None:
    """Another answer, or the same one after a while."""
    assert SharedOpenness(public=ours).adds_to(SharedOpenness(public=stored), 10.0) is worth
