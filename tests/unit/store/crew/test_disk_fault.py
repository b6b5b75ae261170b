"""A disk that fails one worker's download is left alone by all of them."""

from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError
from regproxy.store.ingest import Ingest
from unit.store.crew.crew_of_stores import crew_of_stores

BODY = bytes(300_000)
DIGEST = Digest.of(BODY)


async def test_all_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Clients of the other worker get their content from the registry as well; it is said once."""

    async def failing(ingest: Ingest) -> None:
        await ingest.begin(len(BODY), None)
        await ingest.write([BODY[:100_000]])
        await ingest.size()
        raise StoreError("no space left on the lab's disk")

    async def nothing(ingest: Ingest) -> None:
        raise AssertionError(f"{ingest.digest} is fetched")

    with crew_of_stores(tmp_path, 2) as (one, two):
        ingest = one.store.join_or_start(DIGEST, failing)
        followed = two.store.join_or_start(DIGEST, nothing)
        for each in (ingest, followed):
            with pytest.raises(StoreError):
                await each.verified()
        for member in (one, two):
            with pytest.raises(StoreError, match="nothing is stored"):
                member.store.join_or_start(Digest.of(b"another"), nothing)
    assert sum("the disk failed" in message for message in caplog.messages) == 1
