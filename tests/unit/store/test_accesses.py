"""regproxy.store.accesses."""

from regproxy.store.accesses import Accesses


def test_only_the_latest_access_of_a_key_is_kept() -> None:
    """A thousand hits on one layer are one line for the index."""
    accesses = Accesses()

    accesses.note("a", 1.0)
    accesses.note("b", 2.0)
    accesses.note("a", 3.0)

    assert accesses.take() == {"a": 3.0, "b": 2.0}


def test_what_was_taken_is_not_taken_again() -> None:
    """Each access is written once."""
    accesses = Accesses()
    accesses.note("a", 1.0)
    accesses.take()

    accesses.note("b", 2.0)

    assert accesses.take() == {"b": 2.0}
