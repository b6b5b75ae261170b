"""The parent of several workers: `regproxy.engine.supervisor WORKERS HOST PORT DRAIN_S COMMAND...`.

It opens the port (without listening), a piece of memory and a hub for the workers, starts COMMAND so many times, starts
anew what dies, and ends all of them at TERM, when answers that run have DRAIN_S seconds. It reads no request and opens
no file of the cache. A worker that ends before one has ever served is a wrong setting and ends it all.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regproxy.engine.board import (
    EPOCH_OFFSET,
    SECRET_BYTES,
    SECRET_OFFSET,
    TABLE_WORDS,
    WORD_BYTES,
    board_bytes,
    table_offset,
)
from regproxy.engine.crew import PLACE_VARIABLE, Place
from regproxy.engine.hub import Hub
from regproxy.engine.metrics_directory import VARIABLE as METRICS_VARIABLE
from regproxy.engine.metrics_directory import forget_moment, make_directory, remove_directory

STOP_LIMIT_S = 4.0
"""How long workers may take to end once no answer is waited for any more; then they are killed."""

TERM_INTERVAL_S = 0.5

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STEADY_S = 60.0
"""A worker that has lived so long starts anew without the pauses that its last deaths had."""

LAST_WORDS_S = 1.0

LARGEST_MESSAGE_BYTES = 1024 * 1024
MOST_UNREAD_BYTES = 16 * 1024 * 1024
"""Messages that wait for a worker: with more of them it is stuck, and killed."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be run."""

    workers: int
    host: str
    """Empty for all addresses."""
    port: int
    drain_s: float
    """How long the workers let running answers end after TERM."""
    command: tuple[str, ...]

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> "Orders":
        """Read the command line. Raises ValueError."""
        workers, host, port, drain_s, *command = arguments
        return cls(int(workers), host, int(port), float(drain_s), tuple(command))


class Supervisor:
    """One family of workers."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._hub = Hub(self._ready)
        self._serves = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurried_at_s = math.inf
        """Since when nobody is to be waited for, by the event loop's clock."""
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._metrics: Path | None = None
        """The folder for metrics that is removed at the end."""
        self._environment = dict(os.environ)
        self._began_s = time.monotonic()
        self._has_spoken: set[int] = set()
        """Workers that have come so far as to open the cache."""
        self._failed = False
        self._board = os.memfd_create("registry-proxy-workers")
        os.ftruncate(self._board, board_bytes(orders.workers))
        os.pwrite(self._board, os.urandom(SECRET_BYTES), SECRET_OFFSET)
        self._change_epoch()

    async def run(self) -> int:
        """Run the workers until TERM, or INT, which ends them at once; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        try:
            server = await loop.create_server(
                asyncio.Protocol, self._orders.host or None, self._orders.port, start_serving=False
            )
        except OSError as error:
            _say(f"error: cannot listen on {self._orders.host or '*'}:{self._orders.port}: {error.strerror or error}")
            return 1
        listening = tuple(each.fileno() for each in server.sockets)
        self._make_metrics_directory()  # not before: until now the port may have been another proxy's
        keepers = [loop.create_task(self._keep(1, listening))]
        if await self._first_serves():
            keepers += [loop.create_task(self._keep(each, listening)) for each in range(2, self._orders.workers + 1)]
        await self._stopping.wait()
        server.close()  # the workers close theirs: with this one open, new clients would wait in its backlog
        await self._end(keepers)
        if self._metrics is not None:
            remove_directory(self._metrics)
        return 1 if self._failed else 0

    def _make_metrics_directory(self) -> None:
        """Give the workers a place to count together, unless the operator has."""
        if self._environment.get(METRICS_VARIABLE):
            return
        self._metrics = make_directory(f"registry-proxy-{self._orders.host or 'all'}-{self._orders.port}")
        if self._metrics is None:
            _say("there is no folder for metrics that several processes count: each worker tells its own")
        else:
            self._environment[METRICS_VARIABLE] = str(self._metrics)

    def _stop(self, number: signal.Signals) -> None:
        """Begin to end; at INT, or asked a second time, at once."""
        if number is signal.SIGINT or self._stopping.is_set():
            self._hurry()
        self._stopping.set()

    def _hurry(self) -> None:
        """Have the workers cut what runs: INT does it, once, for a second one would be a crash."""
        if math.isinf(self._hurried_at_s):
            self._hurried_at_s = asyncio.get_running_loop().time()
            for number in self._has_spoken & self._running.keys():
                _signal(self._running[number], signal.SIGINT)

    async def _end(self, keepers: Iterable[asyncio.Task[None]]) -> None:
        """End all workers."""
        loop = asyncio.get_running_loop()
        drained_s, late = loop.time() + self._orders.drain_s, set(keepers)
        while late and loop.time() < min(drained_s, self._hurried_at_s) + STOP_LIMIT_S:
            for process in self._running.values():
                _signal(process, signal.SIGTERM)  # again and again: mitmdump loses one that comes while it starts
            _, late = await asyncio.wait(late, timeout=TERM_INTERVAL_S)
        if late:
            _say(f"{len(self._running)} workers did not end in time: killed")
            self._failed = True
            for process in self._running.values():
                _signal(process, signal.SIGKILL)
            await asyncio.wait(late)

    async def _first_serves(self) -> bool:
        """Wait until the first worker serves: it makes what is to be made once. False when it is to be stopped."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._serves, self._stopping)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        return not self._stopping.is_set()

    async def _keep(self, number: int, listening: tuple[int, ...]) -> None:
        """Run one worker, again and again."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began_s = loop.time()
            code = await self._live(number, listening)
            if self._stopping.is_set():
                self._failed |= code not in (None, 0, -signal.SIGTERM, -signal.SIGINT)
                return
            if not self._serves.is_set():
                self._failed = True
                self._stopping.set()
                return
            pause_s = FIRST_PAUSE_S if loop.time() - began_s > STEADY_S else min(LONGEST_PAUSE_S, pause_s * 2)
            _say(f"worker {number} has ended ({_in_words(code)}): another one takes its place in {pause_s:g} s")
            await asyncio.wait([loop.create_task(self._stopping.wait())], timeout=pause_s)

    async def _start(self, number: int, listening: tuple[int, ...]) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """Start one worker; return it and our end of its channel. Raises OSError, for want of processes or files."""
        ours, its = socket.socketpair()
        place = Place(
            number, number == 1 and not self._serves.is_set(), its.fileno(), self._board, listening, self._began_s
        )
        with its:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._orders.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(its.fileno(), self._board, *listening),
                    env={**self._environment, PLACE_VARIABLE: place.to_text()},
                )
            except OSError:
                ours.close()
                raise
        return process, ours

    async def _live(self, number: int, listening: tuple[int, ...]) -> int | None:
        """Run one worker to its end; what it had is given to the others by then.

        Return its code, None when it could not be started.
        """
        try:
            process, ours = await self._start(number, listening)
        except OSError as error:
            _say(f"worker {number} cannot be started: {error.strerror or error}")
            return None
        self._running[number] = process
        if self._stopping.is_set():
            _signal(process, signal.SIGTERM)
        hearing = asyncio.ensure_future(self._hear(number, ours, process))
        try:
            # Only now its files are closed, and the locks on them free.
            return await process.wait()
        finally:
            del self._running[number]
            _, late = await asyncio.wait([hearing], timeout=LAST_WORDS_S)  # what it said before its end counts
            if late:
                hearing.cancel()
            if process.returncode != 0 and number in self._has_spoken:
                self._change_epoch()
            self._has_spoken.discard(number)
            os.pwrite(self._board, bytes(WORD_BYTES * TABLE_WORDS), table_offset(number))
            self._hub.leave(number)
            if self._metrics is not None:
                with contextlib.suppress(OSError):  # numbers are no reason to do without a worker
                    forget_moment(self._metrics, process.pid)

    async def _hear(self, number: int, channel: socket.socket, process: asyncio.subprocess.Process) -> None:
        reader, writer = await asyncio.open_connection(sock=channel, limit=LARGEST_MESSAGE_BYTES)

        def send(line: bytes) -> None:
            writer.write(line)
            if writer.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
                _say(f"worker {number} has not read its messages for too long: killed")
                _signal(process, signal.SIGKILL)

        self._hub.join(number, send)
        try:
            while line := await reader.readline():
                self._has_spoken.add(number)
                self._hub.hear(number, line)
        except OSError:
            pass  # it has ended: `_live` hears of it
        except (ValueError, KeyError, TypeError) as error:
            _say(f"worker {number} said what cannot be understood ({error!r}): killed")
            _signal(process, signal.SIGKILL)
        finally:
            writer.close()

    def _ready(self, number: int) -> None:
        del number
        self._serves.set()

    def _change_epoch(self) -> None:
        """Make what all workers remember count no more: one that died may have written without telling it."""
        os.pwrite(self._board, os.urandom(8), EPOCH_OFFSET)


def main() -> None:
    """Run as a program."""
    if not hasattr(os, "memfd_create"):
        _say("error: WORKERS needs Linux; leave it at 1")
        sys.exit(1)
    sys.exit(asyncio.run(_run(Orders.of_arguments(sys.argv[1:]))))


async def _run(orders: Orders) -> int:
    return await Supervisor(orders).run()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)


def _in_words(code: int | None) -> str:
    if code is None:
        return "not started"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _say(text: str) -> None:
    sys.stderr.write(f"registry-proxy: {text}\n")


if __name__ == "__main__":
    main()
