"""A bucket counts as back when it gives back what it took."""

import asyncio

import obstore
import pytest

from regproxy.shared import probe as probes
from regproxy.shared.bucket import Bucket, BucketError, StoredObject
from regproxy.shared.paths import PROBE
from regproxy.shared.probe import Probe
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket


def body_in(bucket: ShakyBucket) -> bytes:
    return bytes(obstore.get(bucket.memory, PROBE).bytes())


async def test_it_has_bytes_and_others_each_time(bucket: ShakyBucket) -> None:
    """An object without any needs no more of an engine than its list of names; an old one may be in a cache."""
    probe = Probe(bucket)
    await probe.write()
    first = body_in(bucket)
    await probe.read()

    assert len(first) == len(body_in(bucket)) == probes.PROBE_BYTES
    assert first != body_in(bucket)


async def test_what_another_replica_writes_at_the_same_time_is_as_good(
    bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose it is cannot be seen, only that it is whole."""
    await Probe(bucket).write()
    others = StoredObject(body_in(bucket), None)

    async def get(_: str) -> StoredObject:
        await asyncio.sleep(0)
        return others

    monkeypatch.setattr(bucket, "get", get)
    await Probe(bucket).read()


@pytest.mark.parametrize("change", [lambda _: b"", lambda body: body[:-1], lambda body: body[:-1] + b"\0\0"])
async def test_other_bytes_are_a_failure(bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    """Cut, or changed."""
    assert callable(change)
    got = Bucket.get

    async def get(path: str) -> StoredObject | None:
        stored = await got(bucket, path)
        assert stored is not None
        return StoredObject(change(stored.body), stored.etag)

    monkeypatch.setattr(bucket, "get", get)
    with pytest.raises(BucketError, match="other bytes"):
        await Probe(bucket).read()


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_bucket_that_takes_nothing_can_be_read(
    bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """It may be full; that it fails or hangs when something is written is the other link's matter."""
    if is_there:
        await Probe(bucket).write()

    async def put(_path: str, _body: bytes) -> str | None:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(bucket, "put", put)
    monkeypatch.setattr(probes, "_WRITE_LIMIT_S", 0.01)
    await Probe(bucket).read()


async def test_a_bucket_that_hangs_with_bytes_stays_closed(
    replica: Replica, bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list of names answers, its data does not: nobody is to try that on a client."""
    tier, got = replica(), Bucket.get

    async def get(path: str) -> StoredObject | None:
        stored = await got(bucket, path)
        if stored is not None and stored.body:
            raise BucketError("it did not answer in time")
        return stored

    monkeypatch.setattr(bucket, "get", get)
    await tier.writing.look()
    await tier.reading.look()

    assert (tier.writing.is_up, tier.reading.is_up) == (True, False)
