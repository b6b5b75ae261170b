"""Content that a client had its registry delete: it is given to nobody unasked, and is of no unknown origin."""

from collections.abc import Callable

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Repository, may_take_at_its_word
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.store.content import Store

REPOSITORY = Repository(Registry("quay.io"), "team/app")
BODY = b"a secret layer"
DIGEST = Digest.of(BODY)


@pytest.fixture
async def store(open_store: Callable[..., Store]) -> Store:
    """Return a store with content that an operator's login brought, and that was deleted."""
    opened = open_store()
    await opened.put_content(DIGEST, BODY, "")
    await opened.access.known(REPOSITORY, NOBODY, DIGEST)
    opened.access.answered(REPOSITORY, OpenedBy.OPERATOR, NOBODY, let_in=True, now_s=1_700_000_000.0)
    opened.access.bind(REPOSITORY, DIGEST, Given.TO_OPERATOR)
    await opened.access.flush()
    opened.access.unbind(REPOSITORY, DIGEST)
    return opened


async def test_the_repository_is_not_known_to_have_it(store: Store) -> None:
    """In memory at once, and in the index once it is written."""
    assert not store.access.recall(REPOSITORY, NOBODY, DIGEST).given
    await store.access.flush()
    store.close()
    store.open()
    assert not (await store.access.known(REPOSITORY, NOBODY, DIGEST)).given


async def test_another_registry_is_not_believed_about_it(store: Store) -> None:
    """Nobody gets it by the word of a registry that never sent it, as one may with content of unknown origin."""
    for _ in ("in memory", "in the index"):
        holders = await store.access.holders(DIGEST)
        assert not may_take_at_its_word(Registry("evil.test"), holders)
        assert may_take_at_its_word(REPOSITORY.registry, holders)
        await store.access.flush()


async def test_it_may_be_given_again(store: Store) -> None:
    """After another push and pull it is as before."""
    store.access.bind(REPOSITORY, DIGEST, Given.TO_OPERATOR)
    assert store.access.recall(REPOSITORY, NOBODY, DIGEST).given == Given.TO_OPERATOR
