"""Where the workers' messages meet: claims, and facts that one has learnt and the others want to know.

Runs in the supervisor. Each worker has one connection; a message is one line of JSON, and what the hub passes on it
passes on in one order to all. The last fact of each kind is kept for a worker that is started later. Nothing here
knows what claims and facts are about.

From a worker: `claim` `say` `release` (key, number, said), `fact` (topic, key, value, for_s), `ready`.
To a worker: `granted` `said` `over` `followed` (number, said), `fact` (topic, key, value), `gone` (worker).
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from regproxy.policy.claims import Claimant, ClaimBook

MOST_FACTS = 20_000

type Message = dict[str, Any]
type Send = Callable[[bytes], None]


class Hub:
    """The members by their numbers. For one event loop."""

    def __init__(self, on_ready: Callable[[int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_ready = on_ready
        self._clock = clock
        self._members: dict[int, Send] = {}
        self._claims = ClaimBook()
        self._facts: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()

    def join(self, worker: int, send: Send) -> None:
        """Take a worker in; it is told what the others know."""
        self._members[worker] = send
        now_s = self._clock()
        for until_s, line in self._facts.values():
            if now_s < until_s:
                send(line)

    def leave(self, worker: int) -> None:
        """Let go of a worker that has ended: what it held passes on."""
        if self._members.pop(worker, None) is None:
            return
        for line_of in self._members.values():
            line_of(encoded({"do": "gone", "worker": worker}))
        for passed in self._claims.gone(worker).values():
            self._tell(passed.heir, "granted", said=passed.said, followed=passed.is_followed)

    def hear(self, worker: int, line: bytes) -> None:
        """Take a message. Raises ValueError, KeyError or TypeError for what is none."""
        message: Message = json.loads(line)
        match message["do"]:
            case "claim":
                self._claim(message["key"], Claimant(worker, message["number"]))
            case "say":
                key, claimant, said = message["key"], Claimant(worker, message["number"]), message["said"]
                for each in self._claims.say(key, claimant, said):
                    self._tell(each, "said", said=said)
            case "release":
                for each in self._claims.release(message["key"], Claimant(worker, message["number"])):
                    self._tell(each, "over", said=message["said"])
            case "fact":
                self._pass_on(worker, message)
            case "ready":
                self._on_ready(worker)
            case unknown:
                raise ValueError(f"a message of no known kind: {unknown!r}")

    def _claim(self, key: str, claimant: Claimant) -> None:
        if self._claims.claim(key, claimant):
            self._tell(claimant, "granted", said=None, followed=False)
            return
        said = self._claims.said(key)
        if said is not None:
            self._tell(claimant, "said", said=said)
        holder = self._claims.holder(key)
        if holder is not None:
            self._tell(holder, "followed")

    def _pass_on(self, worker: int, message: Message) -> None:
        line = encoded({"do": "fact", "topic": message["topic"], "key": message["key"], "value": message["value"]})
        key = message["topic"], message["key"]
        if message["value"] is None:
            self._facts.pop(key, None)
        elif message["for_s"] > 0:
            self._facts.pop(key, None)
            self._facts[key] = self._clock() + message["for_s"], line
            if len(self._facts) > MOST_FACTS:
                self._facts.popitem(last=False)
        for other, send in self._members.items():
            if other != worker:
                send(line)

    def _tell(self, claimant: Claimant, what: str, **fields: object) -> None:
        send = self._members.get(claimant.worker)
        if send is not None:
            send(encoded({"do": what, "number": claimant.number, **fields}))


def encoded(message: Message) -> bytes:
    """Return a message as its line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
