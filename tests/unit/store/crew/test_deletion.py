"""What a client had its registry delete by way of one worker, no other worker serves from its memory."""

from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from unit.store.crew.crew_of_stores import crew_of_stores

DIGEST = Digest.of(b"deleted")
REPOSITORY = Repository(Registry.parse("registry.test"), "app")


@pytest.mark.parametrize("looks_at_tag", [False, True], ids=["at once", "after a look at a tag"])
async def test_a_deleted_content_is_nobodys(tmp_path: Path, *, looks_at_tag: bool) -> None:
    """The other worker had it in memory; a look at the rights of the repository brings nothing back."""
    with crew_of_stores(tmp_path) as (one, two):
        book, others = one.store.access, two.store.access
        await book.known(REPOSITORY, NOBODY, DIGEST)
        book.answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=True, now_s=10.0)
        book.bind(REPOSITORY, DIGEST, Given.TO_NOBODY)
        await book.flush()
        await others.known(REPOSITORY, NOBODY, DIGEST)
        assert others.recall(REPOSITORY, NOBODY, DIGEST).given == Given.TO_NOBODY

        book.unbind(REPOSITORY, DIGEST)
        await book.flush()

        if looks_at_tag:
            assert (await others.known(REPOSITORY, NOBODY, None)).openness.public_at_s == 10.0
        assert not others.recall(REPOSITORY, NOBODY, DIGEST).given
        assert not (await others.known(REPOSITORY, NOBODY, DIGEST)).given
