"""The end of a process: what is let go on, what is closed, and when it is over."""

import asyncio
from collections.abc import Callable, Hashable
from types import SimpleNamespace

import pytest

from regproxy.engine import drain
from regproxy.engine.drain import Drain


class Connection:
    """A connection that is at work, or has been quiet in a state."""

    def __init__(self, open_ones: list["Connection"], quiet: Hashable | None) -> None:
        self.quiet = quiet
        self._open = open_ones
        self.was_ended = False
        open_ones.append(self)

    def end(self) -> None:
        """Close it."""
        self.was_ended = True
        self._open.remove(self)


class Process:
    """What a drain ends."""

    def __init__(self, limit_s: float, *, one_of_several: bool = False) -> None:
        self.connections: list[Connection] = []
        self.errands = 0
        self.did: list[str] = []
        self.drain = Drain(
            limit_s,
            close_port=self._close_port,
            connections=lambda: self.connections,
            errands=lambda: self.errands,
            shutdown=lambda: self.did.append("shutdown"),
            one_of_several=one_of_several,
        )

    async def _close_port(self) -> None:
        self.did.append("close port")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the drain go on until something is so."""
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - of whatever is looked at
                await asyncio.sleep(0.001)

    @property
    def is_over(self) -> bool:
        """Whether the process ends."""
        return "shutdown" in self.did


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "QUIET_S", 0.02)
    monkeypatch.setattr(drain, "_LOOK_S", 0.001)


async def test_without_connections_it_ends_at_once() -> None:
    """But first nobody is taken in any more."""
    process = Process(60)
    assert not process.drain.has_begun
    process.drain.begin()
    await process.until(lambda: process.is_over)

    assert process.drain.has_begun
    assert process.did == ["close port", "shutdown"]


async def test_what_is_at_work_ends_and_what_is_quiet_is_closed() -> None:
    """Quiet is who does nothing for a while: not who has just come, nor who goes on and on."""
    process = Process(60)
    busy, idle = Connection(process.connections, None), Connection(process.connections, "idle")
    talking = Connection(process.connections, 0)
    process.drain.begin()
    while not idle.was_ended:
        talking.quiet = object()
        await asyncio.sleep(0.001)
    assert not busy.was_ended
    assert not talking.was_ended
    assert not process.is_over
    busy.end()
    await process.until(lambda: process.is_over)
    assert talking.was_ended


async def test_what_is_to_be_written_is_waited_for() -> None:
    """Errands count as connections do."""
    process = Process(60)
    process.errands = 1
    process.drain.begin()
    await asyncio.sleep(0.05)
    assert not process.is_over
    process.errands = 0
    await process.until(lambda: process.is_over)


@pytest.mark.parametrize("limit_s", [0.0, 0.02])
async def test_its_time_ends(limit_s: float, caplog: pytest.LogCaptureFixture) -> None:
    """What is left then is cut, and said."""
    process = Process(limit_s)
    busy = Connection(process.connections, None)
    process.drain.begin()
    await process.until(lambda: process.is_over)

    assert not busy.was_ended
    assert "1 connections were cut" in caplog.text


@pytest.mark.parametrize("one_of_several", [False, True])
async def test_a_second_term_ends_it_unless_a_supervisor_repeats_it(*, one_of_several: bool) -> None:
    """A supervisor sends INT for that."""
    process = Process(60, one_of_several=one_of_several)
    busy = Connection(process.connections, None)
    process.drain.begin()
    process.drain.begin()
    assert process.is_over is not one_of_several
    busy.end()
    await process.until(lambda: process.is_over)


async def test_a_port_that_cannot_be_closed_does_not_keep_it_alive() -> None:
    """Whatever goes wrong, the process ends."""
    process = Process(60)
    broken = SimpleNamespace(has_ended=False)

    async def fail() -> None:
        broken.has_ended = True
        raise OSError("no")

    process.drain._close_port = fail
    process.drain.begin()
    await process.until(lambda: process.is_over)
    task = process.drain._running
    assert broken.has_ended
    assert task is not None
    with pytest.raises(OSError, match="no"):
        await task
