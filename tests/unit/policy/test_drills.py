"""For whom a registry is away, and what is noted of it."""

from regproxy.oci.names import Registry
from regproxy.policy.drills import MOST_FAILURES, Drill, Drills, Failure, note
from regproxy.policy.image_rules import parse_network

QUAY, TOKENS = Registry("quay.io"), Registry("tokens.quay.io")


def drill(until_s: float = 100.0) -> Drill:
    return Drill(QUAY, frozenset({QUAY, TOKENS}), (parse_network("10.1.0.0/16"),), until_s)


def test_only_chosen_clients_and_one_registry() -> None:
    """With its token server, and until its time is up."""
    now_s = 0.0
    drills = Drills(lambda: now_s)
    assert not drills
    drills.begin(begun := drill())
    assert drills.covers(QUAY, "10.1.2.3") is drills.covers(TOKENS, "::ffff:10.1.2.3") is begun
    assert drills.covers(QUAY, "10.2.2.3") is drills.covers(QUAY, "") is None
    assert drills.covers(Registry("ghcr.io"), "10.1.2.3") is None
    now_s = 100.0
    assert drills.covers(QUAY, "10.1.2.3") is None
    assert drills.all() == [begun]


def test_it_ends_when_it_is_told_to() -> None:
    """What came of it stays; a new one takes its place."""
    drills = Drills(lambda: 5.0)
    drills.begin(drill())
    ended = drills.end(QUAY)
    assert ended is not None
    assert (ended.until_s, drills.is_under_way(ended)) == (5.0, False)
    assert drills.end(TOKENS) is None
    drills.begin(drill())
    assert len(drills.all()) == 1


def test_failures_are_counted_and_bounded() -> None:
    """Equal ones are one line."""
    noted = drill()
    note(noted, "a", "10.1.0.1", 200, is_served=True)
    for _ in range(2):
        note(noted, "b", "10.1.0.1", 502, is_served=False)
    assert (noted.served, noted.failed, noted.failures) == (1, 2, {Failure("b", "10.1.0.1", 502): 2})
    for number in range(MOST_FAILURES):
        note(noted, f"{number}", "10.1.0.1", None, is_served=False)
    assert len(noted.failures) == MOST_FAILURES
    assert Failure("b", "10.1.0.1", 502) not in noted.failures
