"""A worker's side of the hub: it claims what is to be done once, and hears what the other workers have learnt."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from regproxy.engine.hub import encoded

logger = logging.getLogger(__name__)

PLACE_VARIABLE = "REGISTRY_PROXY_WORKER"
"""Where the supervisor tells a worker its place: number, whether it is the first, and the descriptors it inherits."""

MOST_ANSWERED_BYTES = 512 * 1024
"""A longer answer is none: whoever answers keeps it short. The supervisor takes messages of 1 MiB."""

type Heard = Callable[[str, Any], None]
type Answerer = Callable[[Any], Awaitable[Any]]


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
    began_s: float = 0.0
    """When the first of all was started, on the machine's monotonic clock."""

    def to_text(self) -> str:
        """Return the value of the variable."""
        told = [self.number, self.is_first, self.channel_fd, self.board_fd, self.listening_fds, self.began_s]
        return json.dumps(told)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self | None:
        """Return the place of this process; None for one that works alone."""
        text = environ.get(PLACE_VARIABLE)
        if text is None:
            return None
        number, is_first, channel_fd, board_fd, listening_fds, began_s = json.loads(text)
        return cls(number, is_first, channel_fd, board_fd, tuple(listening_fds), began_s)


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
        self._answerers: dict[str, Answerer] = {}
        self._questions: dict[int, _Question] = {}
        self._answering: set[asyncio.Task[None]] = set()
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

    async def ask(self, topic: str, value: object = None, *, holder: str | None = None) -> list[Any]:
        """Return the answers of all others who know the topic, or of the one that holds a claim, if it is another.

        Nobody waits for the dead: the answers of those who live are all. What they have told before is heard by then.
        """
        self._numbers += 1
        question = self._questions[self._numbers] = _Question()
        self._line.send({"do": "ask", "number": self._numbers, "topic": topic, "value": value, "holder": holder})
        number = self._numbers
        try:
            await question.over.wait()
        finally:
            del self._questions[number]
        return [each for each in question.answers if each is not None]

    def on_question(self, topic: str, answerer: Answerer) -> None:
        """Have the others' questions of a topic answered, as JSON has it; None is no answer."""
        self._answerers[topic] = answerer

    async def _answer(self, message: Mapping[str, Any]) -> None:
        answer: Any = None
        try:
            answerer = self._answerers.get(message["topic"])
            if answerer is not None:
                answer = await answerer(message["value"])
        except Exception:
            logger.exception("a question of another worker could not be answered: %s", message["topic"])
        told = {"do": "answer", "asker": message["asker"], "number": message["number"], "value": answer}
        if len(encoded(told)) > MOST_ANSWERED_BYTES:
            logger.warning("the answer to another worker is too long: %s", message["topic"])
            told["value"] = None
        self._line.send(told)

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
            case "asked":
                task = asyncio.get_running_loop().create_task(self._answer(message), name="answer another worker")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case _:
                is_answer = message["do"] in {"answer", "answered"}
                mine: Mapping[int, Claim | _Question] = self._questions if is_answer else self._claims
                concerned = mine.get(message["number"])
                if concerned is not None:
                    concerned.hear(message)


class _Question:
    """What has been answered."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.over = asyncio.Event()

    def hear(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "answer":
            self.answers.append(message["value"])
        else:
            self.over.set()


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
