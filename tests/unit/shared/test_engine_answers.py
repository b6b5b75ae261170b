"""What counts as absent, as overtaken and as a failure, by the answers of engines over HTTP."""

from collections.abc import Awaitable, Callable, Iterator

import pytest

from regproxy.shared.bucket import Bucket, BucketError, ConditionFailed
from regproxy.shared.link import Link
from regproxy.shared.tier import SharedTier
from unit.shared.conftest import ACCESS_TTL_S, SEAL, Replica
from unit.shared.engine import NO_SUCH_KEY, PAGE, Answer, Engine, running_engine
from unit.shared.test_tags import KEY, LIFETIME_S

NO_SUCH_BUCKET = b"<Error><Code>NoSuchBucket</Code></Error>"

type Request = Callable[[Bucket], Awaitable[object]]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHETEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    with running_engine() as running:
        yield running


def tier_over(bucket: Bucket, replica: Replica) -> SharedTier:
    """Return a tier on this bucket, beside the store of a replica."""
    return SharedTier(replica().store, bucket, SEAL, "s3://bucket", ACCESS_TTL_S)


READS: dict[str, Request] = {
    "get": lambda bucket: bucket.get("x"),
    "download": lambda bucket: bucket.download("x", 0),
    "size": lambda bucket: bucket.size_of("x"),
    "delete": lambda bucket: bucket.delete(["x"]),
}


@pytest.mark.parametrize("request_name", READS)
async def test_what_is_not_there_is_no_failure(engine: Engine, request_name: str) -> None:
    """An engine says of which key it speaks; to a HEAD it cannot."""
    assert await READS[request_name](engine.bucket()) is None


@pytest.mark.parametrize("body", [PAGE, b"", NO_SUCH_BUCKET])
@pytest.mark.parametrize("request_name", [name for name in READS if name != "size"])
async def test_any_other_404_is_a_failure(engine: Engine, request_name: str, body: bytes) -> None:
    """A wrong address, a gateway without its engine, a bucket that is gone: not an empty bucket."""
    engine.answers = dict.fromkeys(("GET", "POST"), Answer(404, body))
    with pytest.raises(BucketError, match="the bucket does not exist" if body == NO_SUCH_BUCKET else "it answered 404"):
        await READS[request_name](engine.bucket())


@pytest.mark.parametrize("status", [500, 503])
async def test_a_read_that_is_put_off_once_is_repeated(engine: Engine, status: int) -> None:
    """AWS says 503 SlowDown, and 500, now and then; not twice, for somebody waits."""
    engine.first = [Answer(status)]
    assert await engine.bucket().get("x") is None
    engine.first = [Answer(status)] * 3
    with pytest.raises(BucketError, match=f"it answered {status}"):
        await engine.bucket().get("x")

    assert engine.asked == ["GET"] * 4


@pytest.mark.parametrize("status", [404, 409, 412])
async def test_a_write_without_a_condition_does_not_fail_for_one(engine: Engine, status: int) -> None:
    """Whatever the engine answers."""
    engine.answers["PUT"] = Answer(status, NO_SUCH_KEY)
    with pytest.raises(BucketError, match=f"it answered {status}"):
        await engine.bucket().put("x", b"1")


@pytest.mark.parametrize(
    ("answer", "only_new", "expected"),
    [
        (Answer(412), True, ConditionFailed),
        (Answer(412), False, ConditionFailed),
        (Answer(409), True, ConditionFailed),
        (Answer(409), False, ConditionFailed),
        (Answer(404, NO_SUCH_KEY), False, ConditionFailed),
        (Answer(404, NO_SUCH_KEY), True, BucketError),
        (Answer(404, NO_SUCH_BUCKET), False, BucketError),
        (Answer(404, NO_SUCH_BUCKET), True, BucketError),
        (Answer(404, PAGE), False, BucketError),
        (Answer(404, PAGE), True, BucketError),
    ],
)
async def test_a_condition_fails_for_what_somebody_else_did(
    engine: Engine, answer: Answer, only_new: bool, expected: type[Exception]
) -> None:
    """It was written, is being written, or is gone (AWS: 412, 409, 404 with NoSuchKey); the rest is a failure."""
    engine.answers["PUT"] = answer
    with pytest.raises(expected):
        await engine.bucket().put("x", b"1", replaces=None if only_new else '"1"', only_new=only_new)


@pytest.mark.parametrize("status", [409, 412])
async def test_a_turn_that_nobody_gives_is_asked_for_three_times(engine: Engine, replica: Replica, status: int) -> None:
    """An engine that takes no conditional write holds up a pull for a moment only; nothing else fails for it."""
    engine.answers["PUT"] = Answer(status)
    tier = tier_over(engine.bucket(), replica)
    async with tier.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert not turn.is_leased

    assert engine.asked == ["GET", "PUT"] * 3


async def test_at_a_wrong_address_there_is_one_request(engine: Engine, replica: Replica) -> None:
    """For all pulls until the next probe."""
    engine.answers = dict.fromkeys(("GET", "PUT"), Answer(404, PAGE))
    tier = tier_over(engine.bucket(), replica)
    for _ in range(3):
        async with tier.tags.turn(KEY, None, LIFETIME_S) as turn:
            assert not turn.is_leased

    assert engine.asked == ["GET"]


@pytest.mark.parametrize("status", [403, 404, 409, 412])
async def test_a_strange_answer_to_a_probe_is_one_more_failure(engine: Engine, status: int) -> None:
    """The tier goes on to look."""
    bucket = engine.bucket()
    engine.answers["PUT"] = Answer(status, PAGE)
    link = Link("it fails", "it works", lambda: bucket.put("probe", b"1"))
    await link.look()
    assert not link.is_up
    engine.answers["PUT"] = Answer(200)
    await link.look()
    assert link.is_up
