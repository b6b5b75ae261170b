"""Readers of a worker that follows never get the bytes of one file with what is said of another one."""

import asyncio
import os
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.errors import IngestFailed
from regproxy.store.ingest import Ingest
from unit.store.crew.crew_of_stores import crew_of_stores

BODY = os.urandom(2_000_000)
DIGEST = Digest.of(BODY)
LATENCY_S = 0.0005


async def fetch(ingest: Ingest) -> None:
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY])
    await ingest.finish()


@pytest.mark.parametrize("latency_s", [0.0, LATENCY_S], ids=["at once", "a moment later"])
async def test_a_file_that_is_filled_in_place_of_the_one_that_is_read(tmp_path: Path, latency_s: float) -> None:
    """A download promised its size and ended without a byte; the next one, at the same worker, has its own file."""
    go_on = asyncio.Event()

    async def refused_later(ingest: Ingest) -> None:
        await ingest.begin(len(BODY), None)
        await go_on.wait()
        raise IngestFailed("refused")  # which is no result that is everybody's

    with crew_of_stores(tmp_path) as (one, two):
        one.latency_s = two.latency_s = latency_s
        first = one.store.join_or_start(DIGEST, refused_later)
        await first.size()
        follower = two.store.join_or_start(DIGEST, fetch)
        assert await follower.size() == len(BODY)
        fd = follower.open()

        async def ask_again() -> None:
            await one.store.landed(first)
            one.store.join_or_start(DIGEST, fetch)

        again = asyncio.ensure_future(ask_again())
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(IngestFailed, match="the file that was read is gone"):
            await follower.released(0)
        os.close(fd)
        await again
        last = two.store.join_or_start(DIGEST, fetch)
        await two.store.landed(last)
        assert await two.store.media_type(DIGEST) is not None


async def test_what_is_fetched_though_it_is_stored_is_followed_all_the_same(tmp_path: Path) -> None:
    """Only a download shows whether a client may have it: who follows reads what arrives, not what is there."""
    go_on = asyncio.Event()

    async def half_of_it(ingest: Ingest) -> None:
        await ingest.begin(len(BODY), None)
        await ingest.write([BODY[: len(BODY) // 2]])
        await go_on.wait()
        await ingest.write([BODY[len(BODY) // 2 :]])
        await ingest.finish()

    with crew_of_stores(tmp_path) as (one, two):
        await one.store.landed(one.store.join_or_start(DIGEST, fetch))
        one.store.join_or_start(DIGEST, half_of_it)
        follower = two.store.join_or_start(DIGEST, fetch)
        assert await follower.size() == len(BODY)
        assert await follower.released(0) == len(BODY) // 2
        fd = follower.open()
        go_on.set()
        while await follower.released(len(BODY) - 1) < len(BODY):
            pass
        assert os.pread(fd, len(BODY), 0) == BODY
        os.close(fd)
