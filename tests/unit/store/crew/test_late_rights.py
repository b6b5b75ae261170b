"""What a worker has learnt but not written yet, when another one passes on a refusal or a delete."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import CLOSED, Given, Openness, Repository
from regproxy.policy.identities import NOBODY, Identity
from regproxy.policy.openers import OpenedBy
from regproxy.store.crew.access import CrewAccessBook
from regproxy.store.errors import StoreError
from unit.store.crew.crew_of_stores import Member, crew_of_stores

DIGEST = Digest.of(b"content")
REPOSITORY = Repository(Registry.parse("registry.test"), "app")
ALICE = Identity("a1" * 16)


def book_of(member: Member) -> CrewAccessBook:
    book = member.store.access
    assert isinstance(book, CrewAccessBook)
    return book


async def learn_late(book: CrewAccessBook) -> None:
    """Learn all kinds of rights; they are not written before somebody says so."""
    await book.known(REPOSITORY, ALICE, DIGEST)
    book.answered(REPOSITORY, OpenedBy.CLIENT, ALICE, let_in=True, now_s=10.0)
    book.answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=True, now_s=10.0)
    book.bind(REPOSITORY, DIGEST, Given.TO_NOBODY)
    keep_back(book)


def keep_back(book: CrewAccessBook) -> None:
    assert book._flush is not None
    book._flush.cancel()


async def refuse(book: CrewAccessBook) -> None:
    """Refuse and delete, and write that: now a client may have its answer."""
    await book.known(REPOSITORY, ALICE, DIGEST)
    book.answered(REPOSITORY, OpenedBy.CLIENT, ALICE, let_in=False, now_s=20.0)
    book.answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=False, now_s=20.0)
    book.unbind(REPOSITORY, DIGEST)
    await book.flush()


async def is_closed(member: Member) -> bool:
    known = await member.store.access.known(REPOSITORY, ALICE, DIGEST)
    return not known.given and not (await member.store.access.bindings(DIGEST))[REPOSITORY]


async def test_a_late_binding_is_not_written_over_a_delete(tmp_path: Path) -> None:
    """It is learnt before the delete, without any answer beside it, and written after it."""
    with crew_of_stores(tmp_path) as (one, two):
        late = book_of(one)
        await late.known(REPOSITORY, ALICE, DIGEST)
        late.bind(REPOSITORY, DIGEST, Given.TO_CLIENT)
        keep_back(late)
        await refuse(book_of(two))
        assert not (await late.known(REPOSITORY, ALICE, DIGEST)).given
        await late.flush()
        assert await is_closed(one)
        assert await is_closed(two)


async def test_a_binding_from_after_the_delete_counts(tmp_path: Path) -> None:
    """Somebody pushes the content again."""
    with crew_of_stores(tmp_path) as (one, two):
        await refuse(book_of(two))
        book = book_of(one)
        await book.known(REPOSITORY, ALICE, DIGEST)
        book.bind(REPOSITORY, DIGEST, Given.TO_CLIENT)
        await book.flush()
        assert (await two.store.access.known(REPOSITORY, ALICE, DIGEST)).given == Given.TO_CLIENT


async def test_content_with_a_late_binding_is_not_of_unknown_origin(tmp_path: Path) -> None:
    """Its repository stays among the holders, so that no other registry may claim it."""
    with crew_of_stores(tmp_path) as (one, two):
        await learn_late(book_of(one))
        book_of(two).answered(REPOSITORY, OpenedBy.CLIENT, ALICE, let_in=False, now_s=20.0)
        await book_of(two).flush()
        await book_of(one).flush()
        assert await two.store.access.bindings(DIGEST) == {REPOSITORY: Given.NOWHERE}


async def test_what_other_replicas_told_late_is_not_written_over_a_refusal(tmp_path: Path) -> None:
    """They tell how open a repository is."""
    with crew_of_stores(tmp_path) as (one, two):
        late = book_of(one)
        await late.known(REPOSITORY, NOBODY, None)
        late.adopt(REPOSITORY, lambda _: Openness(10.0, 0.0))
        keep_back(late)
        await refuse(book_of(two))
        await late.flush()
        assert (await two.store.access.known(REPOSITORY, NOBODY, None)).openness == CLOSED


async def never(_: object) -> None:
    raise StoreError("the index gives no answer")


async def nothing_written(book: CrewAccessBook) -> None:
    """Leave it all to the end."""
    del book


async def part_is_given_back(book: CrewAccessBook) -> None:
    """Fail to write before the worker ends."""
    write = book._ledger.write_access
    book._ledger.write_access = never  # type: ignore[assignment]
    with suppress(StoreError):
        await book.flush()
    book._ledger.write_access = write  # type: ignore[method-assign]


async def part_is_being_written(book: CrewAccessBook) -> None:
    """Begin to write: nobody knows whether it succeeds when the worker ends."""
    book._writing = book._take()


@pytest.mark.parametrize("before_end", [nothing_written, part_is_given_back, part_is_being_written])
async def test_a_clean_end_writes_no_right_over_a_refusal(
    tmp_path: Path, before_end: Callable[[CrewAccessBook], object]
) -> None:
    """The worker that ends learnt the rights before the other one was refused."""
    with crew_of_stores(tmp_path) as (one, two):
        late = book_of(one)
        await learn_late(late)
        await before_end(late)  # type: ignore[misc]
        await refuse(book_of(two))
        one.store.close()
        known = await two.store.access.known(REPOSITORY, ALICE, DIGEST)
        assert (known.openness, known.proven_at_s, known.given) == (CLOSED, 0.0, Given.NOWHERE)


async def test_a_clean_end_writes_what_it_learnt(tmp_path: Path) -> None:
    """Nobody was refused."""
    with crew_of_stores(tmp_path) as (one, two):
        await learn_late(book_of(one))
        one.store.close()
        known = await two.store.access.known(REPOSITORY, ALICE, DIGEST)
        assert (known.openness.public_at_s, known.proven_at_s, known.given) == (10.0, 10.0, Given.TO_NOBODY)


async def test_a_clean_end_tells_the_others_of_a_refusal(tmp_path: Path) -> None:
    """They had the right in memory."""
    with crew_of_stores(tmp_path) as (one, two):
        await learn_late(book_of(two))
        await book_of(two).flush()
        await book_of(one).known(REPOSITORY, NOBODY, DIGEST)
        book_of(one).answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=False, now_s=20.0)
        book_of(one).unbind(REPOSITORY, DIGEST)
        keep_back(book_of(one))
        one.store.close()
        assert not two.store.access.recall(REPOSITORY, NOBODY, DIGEST).given
        known = await two.store.access.known(REPOSITORY, NOBODY, DIGEST)
        assert (known.openness, known.given) == (CLOSED, Given.NOWHERE)
