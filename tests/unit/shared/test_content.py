"""Content to the bucket and out of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Repository
from regproxy.policy.identities import NOBODY
from regproxy.shared import content
from regproxy.shared.bucket import Download
from regproxy.shared.paths import about_path, content_path
from regproxy.shared.records import PIECE_BYTES
from regproxy.shared.tier import SharedTier
from regproxy.store.ingest import Ingest
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket
from unit.shared.test_uploads_of_workers import stop, until

APP = Repository(Registry("quay.io", 443), "team/app")
INDEX = "application/vnd.oci.image.index.v1+json"


def body_of(size_bytes: int) -> bytes:
    return bytes(range(256)) * (size_bytes // 256) + bytes(size_bytes % 256)


async def share(tier: SharedTier, body: bytes, media_type: str = "", *, is_held: bool = True) -> Digest:
    """Store a content and write it to the bucket."""
    digest = Digest.of(body)
    await tier.store.put_content(digest, body, media_type)
    if is_held:
        await tier.store.access.known(APP, NOBODY, digest)
        tier.store.access.bind(APP, digest, Given.TO_NOBODY)
    tier.uploads.add(digest, media_type)
    await tier.uploads.hurry(digest)
    await tier.idle()
    return digest


async def fill(tier: SharedTier, digest: Digest) -> tuple[bool, Ingest]:
    """Fill an ingest from the bucket; returns whether all of it came."""
    about = await tier.content.about(digest)
    assert about is not None
    outcome: list[bool] = []

    async def fetch(ingest: Ingest) -> None:
        outcome.append(await tier.content.fill(ingest, about))

    ingest = tier.store.join_or_start(digest, fetch)
    await tier.store.landed(ingest)
    return outcome[0], ingest


@pytest.mark.parametrize("size_bytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_a_content_comes_out_as_it_went_in(replica: Replica, bucket: ShakyBucket, size_bytes: int) -> None:
    """Every byte, in pieces of every size; the object is the content itself."""
    first, second = replica(), replica()
    body = body_of(size_bytes)
    digest = await share(first, body)

    assert (await fill(second, digest))[0]
    stored = second.store.open_content(digest)
    assert stored is not None
    with stored:
        assert stored.size_bytes == size_bytes
    assert bytes(obstore.get(bucket.memory, content_path(digest)).bytes()) == body


async def test_what_somebody_has_written_is_not_written_again(replica: Replica, bucket: ShakyBucket) -> None:
    """Only who else has it is told."""
    first, second = replica(), replica()
    digest = await share(first, body_of(5000))
    bucket.asked.clear()
    await share(second, body_of(5000))

    assert "upload" not in bucket.asked
    assert await second.content.about(digest) is not None


async def test_a_wrong_piece_is_not_written_and_what_is_right_before_it_is_kept(
    replica: Replica, bucket: ShakyBucket
) -> None:
    """No byte of it is in the growing file; the object is removed, and not trusted until it is written anew."""
    first, second = replica(), replica()
    body = bytearray(body_of(3 * PIECE_BYTES))
    digest = await share(first, bytes(body))
    body[PIECE_BYTES] ^= 1
    obstore.put(bucket.memory, content_path(digest), bytes(body))
    is_filled, ingest = await fill(second, digest)
    await second.idle()

    assert not is_filled
    assert ingest.contiguous_bytes == PIECE_BYTES
    assert not {content_path(digest), about_path(digest)} & set(bucket.names())
    assert await second.content.about(digest) is None


async def test_wrong_bytes_that_could_not_be_removed_are_not_removed_later(
    replica: Replica, bucket: ShakyBucket
) -> None:
    """By then somebody may have written what is right."""
    first, second = replica(), replica()
    digest = await share(first, body_of(PIECE_BYTES))
    obstore.put(bucket.memory, content_path(digest), bytes(PIECE_BYTES))
    bucket.fails_to = {"delete"}
    assert not (await fill(second, digest))[0]
    await second.idle()
    assert not second.is_up
    bucket.fails_to = set()
    obstore.put(bucket.memory, content_path(digest), body_of(PIECE_BYTES))
    running = asyncio.ensure_future(second.run())
    await until(lambda: second.is_up and not second.due)
    await stop([running])

    assert {content_path(digest), about_path(digest)} <= set(bucket.names())


@pytest.mark.parametrize("size_bytes", [2 * PIECE_BYTES, 2 * PIECE_BYTES + 2])
async def test_an_object_of_another_size_promises_nothing(
    replica: Replica, bucket: ShakyBucket, size_bytes: int
) -> None:
    """A reader has not even been told a size."""
    first, second = replica(), replica()
    digest = await share(first, body_of(2 * PIECE_BYTES + 1))
    obstore.put(bucket.memory, content_path(digest), body_of(size_bytes))
    is_filled, ingest = await fill(second, digest)

    assert (is_filled, ingest.size_bytes) == (False, None)


async def test_a_download_that_runs_goes_on_when_another_request_fails(
    replica: Replica, bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own limit of time; only what is not open yet waits for the bucket to answer again."""
    first, second = replica(), replica()
    body = body_of(3 * PIECE_BYTES)
    digest = await share(first, body)

    async def beside_a_failure() -> AsyncIterator[bytes]:
        for number in range(3):
            yield body[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
            second.reading.failed("another request got no answer")

    async def download(_path: str, _start: int) -> Download:
        await asyncio.sleep(0)
        return Download(len(body), beside_a_failure())

    monkeypatch.setattr(bucket, "download", download)
    assert (await fill(second, digest))[0]
    assert not second.reading.is_up


async def test_a_download_that_stalls_is_left_and_said(
    replica: Replica, bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for one piece; what has come is kept."""
    first, second = replica(), replica()
    body = body_of(2 * PIECE_BYTES)
    digest = await share(first, body)

    async def stalling() -> AsyncIterator[bytes]:
        yield body[:PIECE_BYTES]
        await asyncio.Event().wait()

    async def download(_path: str, _start: int) -> Download:
        await asyncio.sleep(0)
        return Download(len(body), stalling())

    monkeypatch.setattr(bucket, "download", download)
    monkeypatch.setattr(content, "PIECE_LIMIT_S", 0.05)
    is_filled, ingest = await fill(second, digest)

    assert (is_filled, ingest.contiguous_bytes, second.reading.is_up) == (False, PIECE_BYTES, False)


async def test_a_manifest_is_brought_into_the_store_if_it_is_known_whose_it_is(replica: Replica) -> None:
    """Else the store would take it for content that any registry may claim."""
    first, second = replica(), replica()
    held = await share(first, b'{"schemaVersion": 2}', INDEX)
    nobodys = await share(first, b'{"schemaVersion": 2, "a": 1}', INDEX, is_held=False)
    manifest = await second.content.manifest(APP, held)

    assert manifest is not None
    assert (manifest.media_type, manifest.body) == (INDEX, b'{"schemaVersion": 2}')
    assert second.store.holds(held)
    assert await second.content.manifest(APP, nobodys) is None
    assert not second.store.holds(nobodys)


async def test_a_manifest_with_other_bytes_is_removed(replica: Replica, bucket: ShakyBucket) -> None:
    """Its digest shows it."""
    first, second = replica(), replica()
    digest = await share(first, b'{"schemaVersion": 2}', INDEX)
    obstore.put(bucket.memory, content_path(digest), b'{"schemaVersion": 3}')

    assert await second.content.manifest(APP, digest) is None
    await second.idle()
    assert content_path(digest) not in bucket.names()


async def test_a_damaged_file_is_not_written(replica: Replica, bucket: ShakyBucket, tmp_path: Path) -> None:
    """What the own disk has lost is not given to others."""
    tier = replica("damaged")
    body = body_of(PIECE_BYTES + 100)
    digest = Digest.of(body)
    await tier.store.put_content(digest, body, "")
    file = tmp_path / "damaged" / "content" / "sha256" / digest.hex[:2] / digest.hex
    file.write_bytes(body[:-1] + b"\0\0")
    tier.uploads.add(digest, "")
    await tier.uploads.hurry(digest)

    assert not {content_path(digest), about_path(digest)} & set(bucket.names())
    assert tier.uploads.pending == 0


async def test_what_was_not_written_is_taken_up_by_the_next_run(
    replica: Replica, bucket: ShakyBucket, tmp_path: Path
) -> None:
    """A file says so until it is done."""
    first = replica("one")
    digest = Digest.of(b"late")
    await first.store.put_content(digest, b"late", "")
    bucket.fails = True
    first.uploads.add(digest, "")
    await first.uploads.hurry(digest)
    assert first.uploads.pending == 1
    first.store.close()
    bucket.fails = False
    second = replica("one")
    assert second.uploads.pending == 1
    running = asyncio.ensure_future(second.uploads.run())
    while second.uploads.pending:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    running.cancel()

    assert content_path(digest) in bucket.names()
    assert list((tmp_path / "one" / "shared").iterdir()) == []


async def test_without_the_bucket_nothing_is_known_of_a_content(replica: Replica, bucket: ShakyBucket) -> None:
    """And nothing is raised."""
    tier = replica()
    bucket.fails = True

    assert await tier.content.about(Digest.of(b"x")) is None
    assert await tier.content.manifest(APP, Digest.of(b"x")) is None
