"""A directory that several workers share: one download, one set of accounts, and no memory that is wrong."""

import asyncio
import os
import random
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import CLOSED, Given, Openness, Repository
from regproxy.policy.identities import NOBODY, Identity
from regproxy.policy.openers import OpenedBy
from regproxy.store.content import Store
from regproxy.store.errors import IngestFailed, StoreFull
from regproxy.store.ingest import Ingest
from regproxy.store.layout import Layout
from regproxy.store.records import TagKey, TagRecord, content_key
from unit.store.crew.crew_of_stores import Member, crew_of_stores

BODY = random.Random(9).randbytes(300_000)  # noqa: S311 - not a secret
DIGEST = Digest.of(BODY)
REPOSITORY = Repository(Registry.parse("registry.test"), "app")
ALICE = Identity("a1")
KEY = TagKey("registry.test", "app", "1", ("a/b",))
MANIFEST = b'{"schemaVersion": 2}'
LIMIT_S = 30.0


class Upstream:
    """A fetch that counts how often it runs, and waits half-way where a test wants it to."""

    def __init__(self, *, held: bool = False) -> None:
        self.began_at: list[int] = []
        self.half_way = asyncio.Event()
        self.go_on = asyncio.Event()
        if not held:
            self.go_on.set()

    async def fetch(self, ingest: Ingest) -> None:
        """Send what is missing of the first half, wait, send the rest."""
        self.began_at.append(ingest.missing_from())
        await ingest.begin(len(BODY), '"one"')
        await ingest.write([BODY[ingest.missing_from() : 150_000]])
        self.half_way.set()
        await self.go_on.wait()
        await ingest.write([BODY[ingest.missing_from() :]])
        await ingest.finish()


async def until(is_true: "asyncio.Future[int] | object", limit_s: float = LIMIT_S) -> None:
    """Wait for a condition; AssertionError."""
    assert callable(is_true)
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


def is_indexed(directory: Path, digest: Digest) -> bool:
    """Whether content has its row in the index."""
    with closing(sqlite3.connect(Layout(directory).database)) as connection:
        rows = connection.execute("SELECT COUNT(*) FROM Cache WHERE key = ?", (content_key(digest),))
        return bool(rows.fetchone()[0])


async def read(ingest: Ingest) -> bytes:
    """Return all bytes as a client gets them."""
    size_bytes = await ingest.size()
    fd = ingest.open()
    try:
        body = b""
        while len(body) < size_bytes:
            body += os.pread(fd, await ingest.released(len(body)) - len(body), len(body))
        return body
    finally:
        os.close(fd)


def record(at_s: float = 1.0, body: bytes = MANIFEST) -> TagRecord:
    return TagRecord(Descriptor("a/b", Digest.of(body), len(body)), at_s)


class TestDownload:
    async def test_one_fetch_for_the_readers_of_all(self, tmp_path: Path) -> None:
        """Three workers, one fetch, three times all bytes, and one content."""
        upstream = Upstream()
        with crew_of_stores(tmp_path, 3) as members:
            ingests = [member.store.join_or_start(DIGEST, upstream.fetch) for member in members]
            assert await asyncio.gather(*map(read, ingests)) == [BODY] * 3
            assert upstream.began_at == [0]
            for member, ingest in zip(members, ingests, strict=True):
                await member.store.landed(ingest)
                with member.store.open_content(DIGEST) or pytest.fail("not stored") as stored:
                    assert stored.size_bytes == len(BODY)

    async def test_a_follower_gets_what_is_there(self, tmp_path: Path) -> None:
        """It waits for the rest only."""
        upstream = Upstream(held=True)
        with crew_of_stores(tmp_path) as (one, two):
            ours, theirs = (each.store.join_or_start(DIGEST, upstream.fetch) for each in (one, two))
            assert await asyncio.wait_for(theirs.released(100_000), LIMIT_S) == 150_000
            upstream.go_on.set()
            assert (await read(ours), await read(theirs)) == (BODY, BODY)

    async def test_a_follower_takes_over(self, tmp_path: Path) -> None:
        """From where the other had told it was, in the same file."""
        first, second = Upstream(held=True), Upstream()
        with crew_of_stores(tmp_path) as (one, two):
            one.store.join_or_start(DIGEST, first.fetch)
            await first.half_way.wait()
            ingest = two.store.join_or_start(DIGEST, second.fetch)
            assert await asyncio.wait_for(ingest.released(100_000), LIMIT_S) == 150_000
            one.store.close()
            one.die()
            assert await asyncio.wait_for(read(ingest), LIMIT_S) == BODY
            assert second.began_at == [150_000]

    async def test_what_a_registry_refused_to_one_is_asked_for_the_next(self, tmp_path: Path) -> None:
        """A refusal is nobody else's answer."""
        upstream = Upstream()

        async def refused(_: Ingest) -> None:
            await asyncio.sleep(0.05)
            raise IngestFailed("refused")

        with crew_of_stores(tmp_path) as (one, two):
            ours = one.store.join_or_start(DIGEST, refused)
            theirs = two.store.join_or_start(DIGEST, upstream.fetch)
            assert await asyncio.wait_for(read(theirs), LIMIT_S) == BODY
            with pytest.raises(IngestFailed):
                await ours.size()

    async def test_any_other_failure_is_everybodys(self, tmp_path: Path) -> None:
        """The others do not try what has just failed."""
        upstream = Upstream()

        async def broken(_: Ingest) -> None:
            await asyncio.sleep(0.05)
            raise IngestFailed("no answer for a minute")

        with crew_of_stores(tmp_path) as (one, two):
            one.store.join_or_start(DIGEST, broken)
            theirs = two.store.join_or_start(DIGEST, upstream.fetch)
            with pytest.raises(IngestFailed, match="no answer for a minute"):
                await asyncio.wait_for(theirs.size(), LIMIT_S)
        assert upstream.began_at == []

    async def test_what_was_stored_while_it_was_claimed_is_not_fetched(self, tmp_path: Path) -> None:
        """Between a miss and the claim another worker may have been done."""
        late = Upstream()
        with crew_of_stores(tmp_path) as (one, two):
            claim = one.crew.claim(f"blob {DIGEST}")
            theirs = two.store.join_or_start(DIGEST, late.fetch)
            await one.store.put_content(DIGEST, BODY, "")
            claim.release()
            assert await asyncio.wait_for(read(theirs), LIMIT_S) == BODY
        assert late.began_at == []

    async def test_what_is_stored_is_fetched_for_who_wants_it_fetched(self, tmp_path: Path) -> None:
        """Only what the registry sends may show whether a client may have it."""
        upstream, again = Upstream(), Upstream()
        with crew_of_stores(tmp_path) as (one, two):
            ingest = one.store.join_or_start(DIGEST, upstream.fetch)
            await ingest.verified()
            await one.store.landed(ingest)
            assert two.store.holds(DIGEST)
            assert await asyncio.wait_for(read(two.store.join_or_start(DIGEST, again.fetch)), LIMIT_S) == BODY
        assert again.began_at == [0]

    async def test_whose_it_is_is_known_before_it_is_there(self, tmp_path: Path) -> None:
        """A client of another worker that may have it need not ask its registry."""
        upstream = Upstream(held=True)
        with crew_of_stores(tmp_path) as (one, two):

            async def fetch(ingest: Ingest) -> None:
                with one.store.access.arriving() as arriving:
                    arriving.begin(REPOSITORY, DIGEST, Given.TO_CLIENT, ALICE)
                    await upstream.fetch(ingest)

            one.store.join_or_start(DIGEST, fetch)
            theirs = two.store.join_or_start(DIGEST, upstream.fetch)
            await asyncio.wait_for(theirs.size(), LIMIT_S)
            assert two.store.access.arrives_for(REPOSITORY, ALICE, DIGEST)
            assert not two.store.access.arrives_for(REPOSITORY, Identity("b2"), DIGEST)
            upstream.go_on.set()
            await two.store.landed(theirs)
            assert not two.store.access.arrives_for(REPOSITORY, ALICE, DIGEST)


class TestRoom:
    async def test_the_cap_is_of_all(self, tmp_path: Path) -> None:
        """What one worker has reserved is not there for the other."""
        upstream = Upstream(held=True)
        with crew_of_stores(tmp_path, cap_bytes=600_000) as (one, two):
            one.store.join_or_start(DIGEST, upstream.fetch)
            await upstream.half_way.wait()
            other = random.Random(1).randbytes(250_000)  # noqa: S311 - not a secret
            with pytest.raises(StoreFull):
                await two.store.put_content(Digest.of(other), other, "")
            upstream.go_on.set()

    async def test_one_evicts_what_another_has_stored(self, tmp_path: Path) -> None:
        """And the manifest is in nobody's memory any more."""
        with crew_of_stores(tmp_path, cap_bytes=700_000) as (one, two):
            old = random.Random(2).randbytes(100_000)  # noqa: S311 - not a secret
            await one.store.put_content(Digest.of(old), old, "a/b")
            assert await two.store.manifest(Digest.of(old)) is not None
            assert two.store.recall_manifest(Digest.of(old)) is not None
            for seed in range(5):
                body = random.Random(seed + 10).randbytes(120_000)  # noqa: S311 - not a secret
                await one.store.put_content(Digest.of(body), body, "")
            assert not Layout(tmp_path).content(Digest.of(old)).exists()
            assert two.store.recall_manifest(Digest.of(old)) is None

    async def test_what_a_dead_worker_was_filling_is_given_back(self, tmp_path: Path) -> None:
        """When nobody takes it over; its bytes are resumed by who asks next."""
        with subprocess.Popen(["/bin/true"]) as gone:  # noqa: ASYNC220 - it ends at once
            gone.wait()
        upstream, late = Upstream(held=True), Upstream()
        with crew_of_stores(tmp_path) as (one, two):
            one.store.join_or_start(DIGEST, upstream.fetch)
            await upstream.half_way.wait()
            room = one.store._ledger._room  # type: ignore[union-attr]
            room._owners[DIGEST] = gone.pid  # type: ignore[union-attr]
            one.store.close()
            one.die()
            await two.store.tidy()
            assert await asyncio.wait_for(read(two.store.join_or_start(DIGEST, late.fetch)), LIMIT_S) == BODY
            assert late.began_at == [150_000]


class TestMemory:
    async def test_a_tag_that_another_has_moved_is_read_again(self, tmp_path: Path) -> None:
        """Nothing is served from memory once the other has returned."""
        with crew_of_stores(tmp_path) as (one, two):
            await one.store.put_tag_record(KEY, record())
            assert await two.store.tag_record(KEY) == record()
            assert two.store.recall_tag(KEY) == record()
            await one.store.put_tag_record(KEY, record(2.0))
            assert two.store.recall_tag(KEY) is None
            assert await two.store.tag_record(KEY) == record(2.0)

    async def test_a_tag_that_another_has_forgotten_is_gone(self, tmp_path: Path) -> None:
        """And an answer from before is not recorded after."""
        with crew_of_stores(tmp_path) as (one, two):
            await one.store.put_tag_record(KEY, record())
            assert await two.store.tag_record(KEY) == record()
            before = two.store.forgotten_tags
            await one.store.forget_tag("registry.test", "app", "1")
            assert await two.store.tag_record(KEY) is None
            assert two.store.forgotten_tags != before

    async def test_a_record_on_its_way_does_not_outlive_a_forgotten_tag(self, tmp_path: Path) -> None:
        """The other worker forgets while this one's record waits for the index."""
        with crew_of_stores(tmp_path) as (one, two):
            with two.store._ledger._lock.alone():  # type: ignore[union-attr]
                putting = asyncio.ensure_future(one.store.put_tag_record(KEY, record()))
                await asyncio.sleep(0.05)
                two.store._stamps.change(2)
            await putting
            assert await two.store.tag_record(KEY) is None

    async def test_who_reads_while_another_changes_keeps_nothing_old(self, tmp_path: Path) -> None:
        """A record that was read before the change is not kept with the stamp from after it."""
        with crew_of_stores(tmp_path) as (one, two):
            await one.store.put_tag_record(KEY, record())
            assert two.store.recall_tag(KEY) is None
            before = two.store._hot.tag_stamp(KEY)
            old = await two.store._ledger.text(KEY)  # type: ignore[union-attr]
            assert old is not None
            await one.store.put_tag_record(KEY, record(2.0))
            assert two.store.recall_tag(KEY) is None
            two.store._hot.keep_tag(KEY, TagRecord.from_json(old), before)
            assert two.store.recall_tag(KEY) is None

    async def test_memory_counts_no_more_when_a_worker_has_died(self, tmp_path: Path) -> None:
        """It may have been between its change and the stamp."""
        with crew_of_stores(tmp_path) as (one, two):
            await one.store.put_tag_record(KEY, record())
            assert await two.store.tag_record(KEY) == record()
            two.store._stamps.change(0)
            assert two.store.recall_tag(KEY) is None


async def let_in(member: Member, client: Identity = NOBODY, opened_by: OpenedBy = OpenedBy.NOBODY) -> None:
    book = member.store.access
    await book.known(REPOSITORY, client, DIGEST)
    book.answered(REPOSITORY, opened_by, client, let_in=True, now_s=10.0)
    book.bind(REPOSITORY, DIGEST, Given.TO_NOBODY)
    await book.flush()


class TestRights:
    async def test_what_one_learns_the_others_find(self, tmp_path: Path) -> None:
        """Without a question to the registry, though they have looked before."""
        with crew_of_stores(tmp_path) as (one, two):
            assert (await two.store.access.known(REPOSITORY, NOBODY, DIGEST)).openness == CLOSED
            await let_in(one)
            known = await two.store.access.known(REPOSITORY, NOBODY, DIGEST)
            assert (known.openness.public_at_s, known.given) == (10.0, Given.TO_NOBODY)

    @pytest.mark.parametrize(
        ("client", "opened_by"), [(NOBODY, OpenedBy.NOBODY), (ALICE, OpenedBy.CLIENT)], ids=["everybody", "a client"]
    )
    async def test_a_refusal_counts_for_all_at_once(
        self, tmp_path: Path, client: Identity, opened_by: OpenedBy
    ) -> None:
        """The others had the right in memory, and have not any more when the refusal is written."""
        with crew_of_stores(tmp_path) as (one, two):
            await let_in(one, client, opened_by)
            known = await two.store.access.known(REPOSITORY, client, DIGEST)
            assert max(known.openness.public_at_s, known.proven_at_s) == 10.0
            assert two.store.access.recall(REPOSITORY, client, DIGEST) == known
            one.store.access.answered(REPOSITORY, opened_by, client, let_in=False, now_s=20.0)
            await one.store.access.flush()
            for known in (
                two.store.access.recall(REPOSITORY, client, DIGEST),
                await two.store.access.known(REPOSITORY, client, DIGEST),
            ):
                assert (known.openness.public_at_s, known.proven_at_s) == (0.0, 0.0)

    async def test_a_right_from_before_a_refusal_is_not_written_over_it(self, tmp_path: Path) -> None:
        """One worker has learnt it, but not written it, when another one is refused."""
        with crew_of_stores(tmp_path) as (one, two):
            book = two.store.access
            await book.known(REPOSITORY, ALICE, None)
            async with book._flushing:  # type: ignore[attr-defined]
                book.answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=True, now_s=10.0)
                book.answered(REPOSITORY, OpenedBy.CLIENT, ALICE, let_in=True, now_s=10.0)
                await one.store.access.known(REPOSITORY, NOBODY, None)
                one.store.access.answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=False, now_s=20.0)
                await one.store.access.flush()
                assert (await book.known(REPOSITORY, ALICE, None)).openness == CLOSED
            await book.flush()
            for each in (one, two):
                known = await each.store.access.known(REPOSITORY, ALICE, None)
                assert (known.openness, known.proven_at_s) == (CLOSED, 0.0)

    async def test_an_own_refusal_stands_beside_anothers(self, tmp_path: Path) -> None:
        """It is not thrown away with the rights that are older than the other one."""
        with crew_of_stores(tmp_path) as (one, two):
            await let_in(one, ALICE, OpenedBy.CLIENT)
            book = two.store.access
            await book.known(REPOSITORY, ALICE, None)
            async with book._flushing:  # type: ignore[attr-defined]
                book.answered(REPOSITORY, OpenedBy.CLIENT, ALICE, let_in=False, now_s=20.0)
                one.store.access.answered(REPOSITORY, OpenedBy.NOBODY, NOBODY, let_in=False, now_s=20.0)
                await one.store.access.flush()
                assert (await book.known(REPOSITORY, ALICE, None)).proven_at_s == 0.0
            await book.flush()
            assert (await one.store.access.known(REPOSITORY, ALICE, None)).proven_at_s == 0.0

    async def test_openness_survives_in_the_index(self, tmp_path: Path) -> None:
        """A store that works alone reads what workers wrote."""
        with crew_of_stores(tmp_path) as (one, _):
            await let_in(one)
        alone = Store(tmp_path, 10_000_000, 86400.0, 0)
        alone.open()
        try:
            assert (await alone.access.known(REPOSITORY, NOBODY, DIGEST)).openness == Openness(10.0, 0.0)
        finally:
            alone.close()


class TestOpenAndClose:
    async def test_the_last_to_close_says_that_it_was_closed_cleanly(self, tmp_path: Path) -> None:
        """Not the one before."""
        heartbeat = Layout(tmp_path).heartbeat
        with crew_of_stores(tmp_path) as (one, two):
            one.store.close()
            assert heartbeat.exists()
            two.store.close()
            assert not heartbeat.exists()

    async def test_it_is_closed_before_anybody_has_said_who_keeps_house(self, tmp_path: Path) -> None:
        """At a TERM soon after the start; housekeeping ends by itself."""
        with crew_of_stores(tmp_path) as (one, two):
            one.latency_s = 60.0
            house = asyncio.ensure_future(one.store.housekeeping())
            await asyncio.sleep(0)
            for each in (one, two):
                each.store.close()
            await house

    async def test_an_unclean_end_is_doubted_by_all(self, tmp_path: Path) -> None:
        """Until the one that keeps house has hashed what was written before it."""
        with crew_of_stores(tmp_path) as (one, _):
            await one.store.put_content(DIGEST, BODY, "")
        Layout(tmp_path).heartbeat.touch()
        with crew_of_stores(tmp_path) as (one, two):
            assert one.store.open_content(DIGEST) is two.store.open_content(DIGEST) is None
            house = asyncio.ensure_future(one.store.housekeeping(0.01))
            other = asyncio.ensure_future(two.store.housekeeping(0.01))
            await until(lambda: one.store.holds(DIGEST) and two.store.holds(DIGEST))
            for each in (house, other):
                each.cancel()
            await asyncio.wait([house, other])

    async def test_a_row_that_a_dead_worker_did_not_write_is_found(self, tmp_path: Path) -> None:
        """Its file had been renamed already."""
        with crew_of_stores(tmp_path) as (one, two):
            path = Layout(tmp_path).content(DIGEST)
            path.parent.mkdir(parents=True)
            path.write_bytes(BODY)
            two.die()
            one.store._stamps.change(0)
            house = asyncio.ensure_future(one.store.housekeeping(0.01))
            await until(lambda: one.store.usage.content_bytes > len(BODY))
            await until(lambda: is_indexed(tmp_path, DIGEST))  # it is counted at once, read and indexed after that
            house.cancel()
            await asyncio.wait([house])
            assert await one.store.media_type(DIGEST) == ""
