"""What upstream answers have shown, and for how long that counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.names import Registry
from regproxy.policy.access import (
    CLOSED,
    GIVEN_TO,
    AccessRules,
    Given,
    Ground,
    Holder,
    Known,
    Openness,
    may_take_at_its_word,
)
from regproxy.policy.openers import OpenedBy

RULES = AccessRules(lifetime_s=300, grace_s=3600)
NOW_S = 1_000_000.0
QUAY, EVIL = Registry("quay.io"), Registry("evil.example")


def ago(seconds: float) -> float:
    return NOW_S - seconds


# what is known -> may read at once, may read in an outage
TABLE: list[tuple[str, Known, Ground | None, Ground | None]] = [
    ("nothing", Known(), None, None),
    ("the repository has it, nobody was let in", Known(given=Given.TO_CLIENT), None, None),
    ("public", Known(Openness(ago(299)), given=Given.TO_NOBODY), Ground.PUBLIC, Ground.PUBLIC),
    ("public, but not known to have it", Known(Openness(ago(1)), ago(1)), None, None),
    ("public lately", Known(Openness(ago(300)), given=Given.TO_NOBODY), None, Ground.PUBLIC),
    ("public long ago, and so was this", Known(Openness(ago(1e5)), given=Given.TO_NOBODY), None, Ground.PUBLIC),
    ("public lately, this not known to be", Known(Openness(ago(3599)), given=Given.TO_CLIENT), None, Ground.PUBLIC),
    ("public long ago, this is not", Known(Openness(ago(3600)), given=Given.TO_CLIENT), None, None),
    ("refused to everybody since", Known(CLOSED, given=Given.TO_NOBODY), None, None),
    ("the operator's", Known(Openness(0, ago(1)), given=Given.TO_OPERATOR), Ground.SHARED, Ground.SHARED),
    ("the operator's, long ago", Known(Openness(0, ago(1e5)), given=Given.TO_OPERATOR), None, Ground.SHARED),
    ("the operator's long ago, this is not", Known(Openness(0, ago(1e5)), given=Given.TO_NOBODY), None, None),
    ("refused to the operator since", Known(CLOSED, given=Given.TO_OPERATOR), None, None),
    ("the client's own", Known(CLOSED, ago(299), Given.TO_CLIENT), Ground.OWN, Ground.OWN),
    ("the client's own, lately", Known(CLOSED, ago(300), Given.TO_CLIENT), None, Ground.OWN),
    ("the client's own, long ago", Known(CLOSED, ago(3600), Given.TO_CLIENT), None, None),
    ("from the future", Known(Openness(ago(-1)), ago(-1), Given.TO_CLIENT), None, None),
]


@pytest.mark.parametrize(("known", "at_once", "in_outage"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_known_decides(known: Known, at_once: Ground | None, in_outage: Ground | None) -> None:
    """The repository must be known to have it; then it is public, the operator's, or the client's own."""
    assert RULES.allows(known, NOW_S) == at_once
    assert RULES.allows_in_outage(known, NOW_S) == in_outage


AGES = st.one_of(st.just(0.0), st.floats(NOW_S - 1e6, NOW_S + 10))
KNOWN = st.builds(Known, st.builds(Openness, AGES, AGES), AGES, st.integers(0, 7))


@given(KNOWN, st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_outage_never_takes_access_away(known: Known, lifetime_s: float, grace_s: float) -> None:
    """Whoever may read without asking may read in an outage, whatever the times are."""
    rules = AccessRules(lifetime_s, grace_s)
    assert rules.allows(known, NOW_S) is None or rules.allows_in_outage(known, NOW_S) is not None


@given(KNOWN)
def test_without_a_time_that_counts_nothing_opens(known: Known) -> None:
    """With no lifetime and no grace only content that was open to all, and still is as far as is known, is read."""
    rules = AccessRules(0, 0)
    assert rules.allows(known, NOW_S) is None
    if rules.allows_in_outage(known, NOW_S) is not None:
        assert known.given & (Given.TO_NOBODY | Given.TO_OPERATOR)


def test_an_answer_opens_and_a_refusal_closes_for_whom_it_is() -> None:
    """Neither says anything about the others."""
    both = Openness(1.0, 2.0)
    assert both.after(OpenedBy.NOBODY, let_in=True, now_s=9.0) == Openness(9.0, 2.0)
    assert both.after(OpenedBy.NOBODY, let_in=False, now_s=9.0) == Openness(0.0, 2.0)
    assert both.after(OpenedBy.OPERATOR, let_in=True, now_s=9.0) == Openness(1.0, 9.0)
    assert both.after(OpenedBy.OPERATOR, let_in=False, now_s=9.0) == Openness(1.0, 0.0)
    assert [both.after(OpenedBy.CLIENT, let_in=let_in, now_s=9.0) for let_in in (True, False)] == [both, both]
    assert set(GIVEN_TO) == set(OpenedBy)


@pytest.mark.parametrize(
    ("holders", "believed"),
    [
        ([], True),
        ([Holder(EVIL, Given.TO_CLIENT)], True),
        ([Holder(QUAY, Given.TO_CLIENT)], False),
        ([Holder(QUAY, Given.TO_OPERATOR)], False),
        ([Holder(QUAY, Given.TO_CLIENT), Holder(QUAY, Given.TO_NOBODY)], True),
    ],
)
def test_a_registry_is_not_believed_about_what_is_private_elsewhere(holders: list[Holder], believed: bool) -> None:
    """Its own content, public content, and content of unknown origin: there is nothing to steal."""
    assert may_take_at_its_word(EVIL, holders) is believed
