"""A worker's side of the hub: it claims what is to be done once, and hears what the other workers have learnt."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from regproxy.engine.hub import encoded

logger = logging.getLogger(__name__)

PLACE_VARIABLE = "REGISTRY_PROXY_WORKER"
"""Where the supervisor tells a worker its place: number, whether it is the first, and the descriptors it inherits."""

type Heard = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker is given by its supervisor."""

    number: int
    """From 1 on; a worker that is started anew keeps it."""
    is_first: bool
    """Whether it is the first of all, not one that has taken another's place."""
    channel_fd: int
    board_fd: int
    listening_fds: tuple[int, ...]

    def to_text(self) -> str:
        """Return the value of the variable."""
        return json.dumps([self.number, self.is_first, self.channel_fd, self.board_fd, self.listening_fds])

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self | None:
        """Return the place of this process; None for one that works alone."""
        text = environ.get(PLACE_VARIABLE)
        if text is None:
            return None
        number, is_first, channel_fd, board_fd, listening_fds = json.loads(text)
        return cls(number, is_first, channel_fd, board_fd, tuple(listening_fds))


class Claim:
    """A worker's claim to one key: granted at once, or when its holder dies; or over, when the holder is done."""

    def __init__(
        self, send: Callable[[dict[str, Any]], None], key: str, number: int, forget: Callable[[], None]
    ) -> None:
        self._send, self._key, self._number, self._forget = send, key, number, forget
        self._changed = asyncio.Event()
        self._is_released = False
        self.is_granted = False
        self.is_over = False
        self.said: Any = None
        """What the holder said last; None for nothing."""
        self.is_followed = False
        """Whether others wait for what this one holds."""
        self.on_followed: Callable[[], None] = lambda: None
        """Called when another one begins to wait."""

    async def next_word(self) -> None:
        """Wait until something has changed since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def say(self, said: object) -> None:
        """Tell those who wait."""
        self._send({"do": "say", "key": self._key, "number": self._number, "said": said})

    def release(self, said: object = None) -> None:
        """Let go, with a last word to those who wait; a second call does nothing."""
        if self._is_released:
            return
        self._is_released = True
        self._forget()
        if not self.is_over:
            self._send({"do": "release", "key": self._key, "number": self._number, "said": said})

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take what the hub says of it."""
        match message["do"]:
            case "granted":
                self.is_granted, self.is_followed = True, message["followed"]
                self.said = message["said"]
            case "said":
                self.said = message["said"]
            case "over":
                self.is_over, self.said = True, message["said"]
            case _:
                self.is_followed = True
                self.on_followed()
        self._changed.set()


class Crew:
    """The other workers, by way of the hub. For the event loop; `open` it there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._claims: dict[int, Claim] = {}
        self._numbers = 0
        self._heard: dict[str, Heard] = {}
        self._gone: list[Callable[[], None]] = []
        self._line = _Line(self._hear)

    def open(self) -> None:
        """Connect; what is said before goes out then. The process ends when its supervisor has gone."""
        channel = socket.socket(fileno=self.place.channel_fd)
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(loop.connect_accepted_socket(lambda: self._line, channel))

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self._line.send({"do": "ready"})

    def claim(self, key: str) -> Claim:
        """Claim a key."""
        self._numbers += 1
        number = self._numbers
        claim = Claim(self._line.send, key, number, lambda: self._forget(number))
        self._claims[number] = claim
        self._line.send({"do": "claim", "key": key, "number": number})
        return claim

    def tell(self, topic: str, key: str, value: object, for_s: float = 0.0) -> None:
        """Tell the others a fact, also those that are started within so many seconds, 0 for none of them.

        They are told the last of a key that is not for 0 s; a value of None ends it.
        """
        self._line.send({"do": "fact", "topic": topic, "key": key, "value": value, "for_s": for_s})

    def on_fact(self, topic: str, heard: Heard) -> None:
        """Have facts of a topic heard: key and value."""
        self._heard[topic] = heard

    def on_gone(self, heard: Callable[[], None]) -> None:
        """Have it heard when another worker has died."""
        self._gone.append(heard)

    def _forget(self, number: int) -> None:
        self._claims.pop(number, None)

    def _hear(self, line: bytes) -> None:
        message = json.loads(line)
        match message["do"]:
            case "fact":
                heard = self._heard.get(message["topic"])
                if heard is not None:
                    heard(message["key"], message["value"])
            case "gone":
                for each in self._gone:
                    each()
            case _:
                claim = self._claims.get(message["number"])
                if claim is not None:
                    claim.hear(message)


class _Line(asyncio.Protocol):
    """The connection to the hub."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()
        self._rest = b""

    def send(self, message: dict[str, Any]) -> None:
        line = encoded(message)
        if self._transport is None:
            self._unsent += line
        else:
            self._transport.write(line)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(bytes(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self._hear(line)
            except Exception:
                logger.exception("a message of another worker was not understood")

    def connection_lost(self, _reason: Exception | None) -> None:
        # Alone, a worker would hold the port and the cache for nobody who restarts or stops it.
        os.kill(os.getpid(), signal.SIGTERM)
