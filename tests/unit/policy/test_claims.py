"""Claims: one holder, those who wait, and what becomes of both when a worker dies."""

from regproxy.policy.claims import Claimant, ClaimBook, Passed

ONE, TWO, THREE = Claimant(1, 1), Claimant(2, 1), Claimant(3, 1)


def claimed() -> ClaimBook:
    """Return a book in which ONE holds `key`, and TWO and THREE wait."""
    book = ClaimBook()
    assert [book.claim("key", each) for each in (ONE, TWO, THREE)] == [True, False, False]
    return book


def test_the_first_holds_it_and_the_others_hear_what_it_says() -> None:
    """In the order in which they came."""
    book = claimed()

    assert book.say("key", ONE, "half") == (TWO, THREE)
    assert (book.holder("key"), book.said("key")) == (ONE, "half")


def test_who_only_waits_says_nothing() -> None:
    """A word that crosses with the news of a new holder is passed over."""
    book = claimed()

    assert book.say("key", TWO, "no") == ()
    assert book.said("key") is None


def test_a_release_ends_it_for_all() -> None:
    """Those who waited are told, and the next to come holds it."""
    book = claimed()

    assert book.release("key", ONE) == (TWO, THREE)
    assert book.claim("key", THREE)


def test_who_leaves_is_not_waited_for() -> None:
    """Nor is it told anything."""
    book = claimed()

    assert book.release("key", TWO) == ()
    assert book.say("key", ONE, "more") == (THREE,)


def test_the_claim_of_a_dead_worker_passes_on_with_its_last_word() -> None:
    """To the one who has waited longest."""
    book = claimed()
    book.say("key", ONE, "half")

    assert book.gone(1) == {"key": Passed(TWO, "half", is_followed=True)}
    assert book.holder("key") == TWO


def test_a_dead_worker_waits_for_nothing() -> None:
    """And what nobody waits for is free."""
    book = claimed()
    book.claim("other", ONE)

    assert book.gone(2) == {}
    assert book.gone(1) == {"key": Passed(THREE, None, is_followed=False)}
    assert book.claim("other", THREE)


def test_a_worker_may_claim_again_before_its_last_claim_is_over() -> None:
    """Its two claims are not taken for one another."""
    book = claimed()
    again = Claimant(1, 2)

    assert not book.claim("key", again)
    assert book.release("key", ONE) == (TWO, THREE, again)
    assert book.release("key", ONE) == ()
