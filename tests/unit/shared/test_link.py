"""Whether the bucket answers, and what is said of it."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from regproxy.shared import link as links
from regproxy.shared.bucket import BucketError, ConditionFailed
from regproxy.shared.link import LONGEST_PAUSE_S, STEADY_S, BucketDown, Link


class Far:
    """The other end."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.asked = 0

    async def answer(self) -> str:
        """Answer, or fail."""
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return "yes"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_it_costs_one_failure_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing goes out until a probe was answered; both ends are told, and for a while no other outage is."""
    far = Far()
    link = Link("it fails", "it works", far.answer)
    assert await link.ask(far.answer, 1.0) == "yes"
    far.failure = BucketError("it answered 503")
    for _ in range(3):
        with pytest.raises(BucketDown):
            await link.ask(far.answer, 1.0)
    assert (far.asked, link.is_up) == (2, False)
    await link.look()
    assert not link.is_up
    far.failure = None
    await link.look()
    assert link.is_up
    far.failure = BucketError("it answered 503")
    with pytest.raises(BucketDown):
        await link.ask(far.answer, 1.0)

    assert lines(caplog) == ["it fails: it answered 503", "it works again after 0 s"]


async def test_an_answer_that_does_not_come_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """The limit is the caller's."""
    link = Link("it fails", "it works", Far().answer)
    with pytest.raises(BucketDown):
        await link.ask(asyncio.Event().wait, 0.01)

    assert lines(caplog) == ["it fails: it did not answer in 0.01 s"]


async def test_what_is_not_the_buckets_failure_is_the_callers() -> None:
    """A condition that failed is an answer."""
    far = Far()
    far.failure = ConditionFailed("x")
    link = Link("it fails", "it works", far.answer)
    with pytest.raises(ConditionFailed):
        await link.ask(far.answer, 1.0)

    assert link.is_up


async def test_somebody_looks_while_it_is_away() -> None:
    """Nobody has to ask for it to be found."""
    far = Far()
    far.failure = BucketError("it answered 503")
    link = Link("it fails", "it works", far.answer)
    with pytest.raises(BucketDown):
        await link.ask(far.answer, 1.0)
    far.failure = None
    looking = asyncio.ensure_future(link.keep_looking())
    async with asyncio.timeout(30):
        while not link.is_up:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    looking.cancel()

    assert await link.ask(far.answer, 1.0) == "yes"


class Clock:
    """The time that links go by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(links, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def seconds_until_a_look(self, link: Link) -> int:
        """Turn the clock on, second by second, until somebody is to look."""
        began_s = self.now_s
        while not link.is_to_be_looked_at:
            self.now_s += 1
        return round(self.now_s - began_s)


async def test_what_fails_again_and_again_is_left_alone_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that is answered proves little then: each time costs a client its wait. Once steady it starts anew."""
    clock, far = Clock(monkeypatch), Far()
    link = Link("it fails", "it works", far.answer)
    pauses = []
    for _ in range(7):
        link.failed("it did not answer")
        pauses.append(clock.seconds_until_a_look(link))
        await link.look()
        assert link.is_up
        clock.now_s += STEADY_S - 1
    assert pauses == [2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    clock.now_s += 1
    link.failed("it did not answer")
    assert clock.seconds_until_a_look(link) == 2


async def test_one_outage_is_looked_at_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is, also where another process has noted it."""
    clock, far = Clock(monkeypatch), Far()
    far.failure = BucketError("it answered 503")
    link = Link("it fails", "it works", far.answer)
    assert not link.is_to_be_looked_at
    link.hear_failed("it did not answer")
    for _ in range(5):
        assert clock.seconds_until_a_look(link) == 2
        await link.look()
    far.failure = None
    clock.seconds_until_a_look(link)
    await link.look()
    link.hear_failed("it did not answer")
    assert clock.seconds_until_a_look(link) == 4
