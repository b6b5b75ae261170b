"""What a real S3 engine answers, where the shared store relies on it."""

from collections.abc import Awaitable, Callable, Iterator

import obstore
import pytest

from lab.seaweed import Seaweed
from regproxy.shared.bucket import Bucket, BucketError, ConditionFailed
from regproxy.shared.probe import Probe

pytestmark = pytest.mark.e2e

MORE_THAN_ONE_REQUEST_REMOVES = 1_001

type Read = Callable[[Bucket], Awaitable[object]]

READS: dict[str, Read] = {
    "get": lambda bucket: bucket.get("a/b"),
    "download": lambda bucket: bucket.download("a/b", 5),
    "delete": lambda bucket: bucket.delete(["a/b"]),
}


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with Seaweed(tmp_path_factory.mktemp("engine") / "weed") as running:
        yield running


def bucket_of(weed: Seaweed, name: str) -> Bucket:
    client = weed.bucket(name)
    return Bucket(client, client)


@pytest.mark.parametrize("name", READS)
async def test_an_object_that_is_not_there_is_told_from_a_bucket_that_is_not(weed: Seaweed, name: str) -> None:
    """Only the former is no failure."""
    assert await READS[name](bucket_of(weed, "ready")) is None
    with pytest.raises(BucketError, match="the bucket does not exist"):
        await READS[name](bucket_of(weed, "nobodys"))
    assert await bucket_of(weed, "ready").size_of("a/b") is None


async def test_conditions_are_kept(weed: Seaweed) -> None:
    """New, unchanged, or not written: also in the place of what is gone."""
    bucket = bucket_of(weed, "conditions")
    first = await bucket.put("x", b"1", only_new=True)
    with pytest.raises(ConditionFailed):
        await bucket.put("x", b"2", only_new=True)
    second = await bucket.put("x", b"3", replaces=first)
    with pytest.raises(ConditionFailed):
        await bucket.put("x", b"4", replaces=first)
    await bucket.delete(["x"])
    with pytest.raises(ConditionFailed):
        await bucket.put("x", b"5", replaces=second)


async def test_a_probe_makes_the_bucket_and_comes_back(weed: Seaweed) -> None:
    """The first one that is written; before it there is nothing to read from."""
    bucket = bucket_of(weed, "probed")
    with pytest.raises(BucketError):
        await bucket.get("x")
    await Probe(bucket).write()
    await Probe(bucket).read()
    assert await bucket.get("x") is None


async def test_any_number_of_objects_is_removed(weed: Seaweed) -> None:
    """One request takes a thousand names; what is not there is passed over."""
    bucket, client = bucket_of(weed, "many"), weed.bucket("many")
    names = [f"below/{number}" for number in range(MORE_THAN_ONE_REQUEST_REMOVES)]
    for name in names:
        await obstore.put_async(client, name, b"", use_multipart=False)
    await bucket.delete([*names, "below/none"])

    assert await bucket.names_below("below", len(names)) == []
