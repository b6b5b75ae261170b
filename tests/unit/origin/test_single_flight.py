"""One call for everyone who asks at the same time."""

import asyncio
import gc

import pytest

from regproxy.origin.single_flight import SingleFlight


class Question:
    """A call that ends when the test says so."""

    def __init__(self) -> None:
        self.calls = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask(self) -> str:
        """Wait for the test's answer."""
        self.calls += 1
        return await self.answer


async def test_one_call_answers_all() -> None:
    """Ten askers of one key, one call, one answer; another key has its own."""
    flight: SingleFlight[str, str] = SingleFlight()
    one, other = Question(), Question()
    asking = [asyncio.ensure_future(flight.run("one", one.ask)) for _ in range(10)]
    asking_other = asyncio.ensure_future(flight.run("other", other.ask))
    await asyncio.sleep(0)
    one.answer.set_result("1")
    other.answer.set_result("2")

    assert await asyncio.gather(*asking) == ["1"] * 10
    assert await asking_other == "2"
    assert (one.calls, other.calls) == (1, 1)


async def test_everyone_gets_the_failure_and_the_next_asks_anew() -> None:
    """A failure is not remembered."""
    flight: SingleFlight[str, str] = SingleFlight()
    bad, good = Question(), Question()
    asking = [asyncio.ensure_future(flight.run("key", bad.ask)) for _ in range(3)]
    await asyncio.sleep(0)
    bad.answer.set_exception(ValueError("no"))

    assert [str(error) for error in await asyncio.gather(*asking, return_exceptions=True)] == ["no"] * 3
    good.answer.set_result("yes")
    assert await flight.run("key", good.ask) == "yes"


@pytest.mark.parametrize("leaver", [0, 1])
async def test_a_client_that_leaves_takes_nothing_with_it(leaver: int) -> None:
    """Neither the first, who started the call, nor a later one."""
    flight: SingleFlight[str, str] = SingleFlight()
    question = Question()
    asking = [asyncio.ensure_future(flight.run("key", question.ask)) for _ in range(2)]
    await asyncio.sleep(0)

    asking[leaver].cancel()
    await asyncio.sleep(0)
    question.answer.set_result("here")

    assert await asking[1 - leaver] == "here"
    assert asking[leaver].cancelled()
    assert question.calls == 1


async def test_a_call_that_everyone_has_left_goes_on_and_is_forgotten() -> None:
    """Its result still counts (it fills the cache); a failure that nobody waits for makes no noise."""
    flight: SingleFlight[str, str] = SingleFlight()
    question = Question()
    asking = asyncio.ensure_future(flight.run("key", question.ask))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))

    question.answer.set_exception(ValueError("nobody listens"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()

    assert flight._running == {}
    assert noise == []


async def test_a_call_that_ends_at_once_is_not_kept() -> None:
    """Under mitmproxy's eager tasks a call may be over before it is noted down."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    flight: SingleFlight[str, int] = SingleFlight()
    calls = 0

    async def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    assert [await flight.run("key", count), await flight.run("key", count)] == [1, 2]
    assert flight._running == {}
