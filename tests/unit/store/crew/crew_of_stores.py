"""Several stores on one directory, as several workers have them, in one process: with a real hub and real locks."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from regproxy.engine.crew import Crew, Place
from regproxy.engine.hub import Hub, encoded
from regproxy.store.crew.sharing import Sharing
from regproxy.store.crew.stamps import EPOCH, Stamps
from regproxy.store.crew.store import CrewStore
from regproxy.store.errors import IngestFailed


class Words:
    """Errors of ingests as other workers hear them."""

    def told(self, error: Exception) -> dict[str, Any]:
        """Return the text."""
        return {"text": str(error)}

    def heard(self, told: dict[str, Any]) -> Exception | None:
        """Return an error of the text; None for `refused`."""
        return None if told["text"] == "refused" else IngestFailed(told["text"])


class Member:
    """One worker: its crew and its store, not opened."""

    latency_s = 0.0
    """How long a message to or from the hub takes."""

    def __init__(
        self,
        number: int,
        hub: Hub,
        stamps: Stamps,
        directory: Path,
        cap_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.number, self._hub = number, hub
        self.crew = Crew(Place(number, number == 1, -1, -1, ()))
        self._is_alive = True
        self.crew._line.send = self._send  # type: ignore[method-assign]
        hub.join(number, self._receive)
        sharing = Sharing(self.crew.claim, stamps, Words())
        self.store = CrewStore(directory, cap_bytes, 86400.0, 0, clock, sharing=sharing)

    def _send(self, message: dict[str, Any]) -> None:
        asyncio.get_running_loop().call_later(self.latency_s, self._deliver, encoded(message))

    def _deliver(self, line: bytes) -> None:
        if self._is_alive:
            self._hub.hear(self.number, line)

    def _receive(self, line: bytes) -> None:
        asyncio.get_running_loop().call_later(self.latency_s, self._heard, line)

    def _heard(self, line: bytes) -> None:
        if self._is_alive:
            self.crew._hear(line)

    def die(self) -> None:
        """Be heard of no more; what it holds passes on."""
        self._is_alive = False
        self._hub.leave(self.number)


@contextmanager
def crew_of_stores(
    directory: Path, count: int = 2, cap_bytes: int = 10_000_000, clock: Callable[[], float] = time.time
) -> Iterator[list[Member]]:
    """Yield workers with open stores."""
    hub, stamps = Hub(lambda _: None), Stamps.of_one()
    stamps.change(EPOCH)
    members = [Member(number, hub, stamps, directory, cap_bytes, clock) for number in range(1, count + 1)]
    with ExitStack() as cleanup:
        for member in members:
            member.store.open()
            cleanup.callback(member.store.close)
        yield members
