"""What is written while nobody waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

from regproxy.shared.bucket import ConditionFailed
from regproxy.shared.errands import MOST, TRIES, Errands
from regproxy.shared.link import BucketDown


class Bucket:
    """Takes what it is given while it is up, and notes it."""

    def __init__(self) -> None:
        self.is_up = True
        self.breaks_at: set[str] = set()
        """It fails at these, and is up all the same."""
        self.has: list[str] = []
        self.asked = 0
        self.errands = Errands(lambda: self.is_up)

    def write(self, text: str) -> Callable[[], Awaitable[None]]:
        """Return the errand that writes something."""

        async def do() -> None:
            self.asked += 1
            await asyncio.sleep(0)
            if not self.is_up or text in self.breaks_at:
                raise BucketDown
            self.has.append(text)

        return do


async def test_the_newest_of_a_name_is_written() -> None:
    """One that has not begun gives way."""
    bucket = Bucket()
    bucket.is_up = False
    for text in ("old", "new"):
        bucket.errands.add("name", bucket.write(text))
    bucket.is_up = True
    bucket.errands.add("another", bucket.write("another"))
    await bucket.errands.idle()

    assert sorted(bucket.has) == ["another", "new"]


async def test_what_fails_is_done_when_the_bucket_answers_again() -> None:
    """Nothing is begun before; what was added meanwhile is done, too."""
    bucket = Bucket()
    bucket.errands.add("first", bucket.write("first"))
    bucket.is_up = False
    await bucket.errands.idle()
    bucket.errands.add("second", bucket.write("second"))
    await bucket.errands.idle()
    assert (bucket.asked, bucket.errands.pending) == (1, 2)
    bucket.is_up = True
    running = asyncio.ensure_future(bucket.errands.run())
    while bucket.errands.pending:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    running.cancel()

    assert sorted(bucket.has) == ["first", "second"]


async def test_what_failed_does_not_take_the_place_of_what_came_after_it() -> None:
    """It is older."""
    bucket = Bucket()
    bucket.breaks_at = {"old"}
    bucket.errands.add("name", bucket.write("old"))
    await asyncio.sleep(0)
    bucket.errands.add("name", bucket.write("new"))
    await bucket.errands.idle()

    assert (bucket.has, bucket.asked) == (["new"], 2)


async def test_what_is_dropped_is_not_done() -> None:
    """Nor tried again, if it runs just then; what comes afterwards is done."""
    bucket = Bucket()
    bucket.breaks_at = {"running"}
    bucket.errands.add("tag/1", bucket.write("running"))
    await asyncio.sleep(0)
    bucket.errands.add("tag/1", bucket.write("waiting"))
    bucket.errands.add("other/1", bucket.write("other"))
    bucket.errands.drop("tag/")
    await bucket.errands.idle()
    assert (bucket.has, bucket.asked) == (["other"], 2)
    bucket.errands.add("tag/1", bucket.write("afterwards"))
    await bucket.errands.idle()

    assert bucket.has == ["other", "afterwards"]


async def test_what_never_succeeds_is_given_up() -> None:
    """A bucket that answers everything else does not take this."""
    bucket = Bucket()
    bucket.breaks_at = {"too large"}
    for text in ("too large", "good"):
        bucket.errands.add(text, bucket.write(text))
    await bucket.errands.idle()

    assert (bucket.has, bucket.asked, bucket.errands.pending) == (["good"], TRIES + 1, 0)


async def test_somebody_else_was_quicker_is_not_tried_again() -> None:
    """What is there now is newer."""
    bucket, asked = Bucket(), 0

    async def lose() -> None:
        nonlocal asked
        asked += 1
        raise ConditionFailed("name")

    bucket.errands.add("name", lose)
    await bucket.errands.idle()

    assert (asked, bucket.errands.pending) == (1, 0)


async def test_a_long_outage_fills_no_memory() -> None:
    """What is over the limit is dropped; what waits may still be replaced."""
    bucket = Bucket()
    bucket.is_up = False
    for number in range(MOST + 10):
        bucket.errands.add(str(number), bucket.write(str(number)))
    bucket.errands.add("0", bucket.write("newer"))
    assert bucket.errands.pending == MOST
    bucket.is_up = True
    bucket.errands.add("0", bucket.write("newest"))
    await bucket.errands.idle()

    assert len(bucket.has) == MOST
    assert {"newest", str(MOST - 1)} <= set(bucket.has)
    assert {"0", "newer", str(MOST)}.isdisjoint(bucket.has)
