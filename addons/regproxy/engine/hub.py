"""Where the workers' messages meet: claims, facts that one has learnt, and questions that one has for the others.

Runs in the supervisor. Each worker has one connection; a message is one line of JSON, and what the hub passes on it
passes on in one order to all: what a worker has told before it answers a question, the asker has heard before the
answer. The last fact of each kind is kept for a worker that is started later. Nothing here knows what claims, facts and
questions are about.

From a worker: `claim` `say` `release` (key, number, said), `fact` (topic, key, value, for_s), `ready`,
`ask` (number, topic, value, holder: of which claim, or null for all others), `answer` (asker, number, value).
To a worker: `granted` `said` `over` `followed` (number, said), `fact` (topic, key, value), `gone` (worker),
`asked` (asker, number, topic, value), `answer` (number, value), `answered` (number: there will be no more).
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from regproxy.policy.claims import Claimant, ClaimBook
from regproxy.policy.questions import Question, QuestionBook

MOST_FACTS = 5_000
"""Of one topic: many of one kind do not displace the few of another."""

type Message = dict[str, Any]
type Send = Callable[[bytes], None]
type _Facts = OrderedDict[str, tuple[float, bytes]]
"""Until when they count, and the message; the oldest first."""


class Hub:
    """The members by their numbers. For one event loop."""

    def __init__(self, on_ready: Callable[[int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_ready = on_ready
        self._clock = clock
        self._members: dict[int, Send] = {}
        self._claims = ClaimBook()
        self._questions = QuestionBook()
        self._topics: dict[str, _Facts] = {}

    def join(self, worker: int, send: Send) -> None:
        """Take a worker in; it is told what the others know."""
        self._members[worker] = send
        now_s = self._clock()
        for facts in self._topics.values():
            for until_s, line in facts.values():
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
        for question in self._questions.gone(worker):
            self._over(question)

    def hear(self, worker: int, line: bytes) -> None:
        """Take a message. Raises ValueError, KeyError or TypeError for what is none."""
        message: Message = json.loads(line)
        match message["do"]:
            case "claim" | "say" | "release":
                self._hear_claimant(Claimant(worker, message["number"]), message)
            case "fact":
                self._pass_on(worker, message)
            case "ask":
                self._ask(Question(worker, message["number"]), message)
            case "answer":
                self._answer(Question(message["asker"], message["number"]), worker, message["value"])
            case "ready":
                self._on_ready(worker)
            case unknown:
                raise ValueError(f"a message of no known kind: {unknown!r}")

    def _hear_claimant(self, claimant: Claimant, message: Message) -> None:
        key = message["key"]
        match message["do"]:
            case "claim":
                self._claim(key, claimant)
            case "say":
                for each in self._claims.say(key, claimant, message["said"]):
                    self._tell(each, "said", said=message["said"])
            case _:
                for each in self._claims.release(key, claimant):
                    self._tell(each, "over", said=message["said"])

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
        facts = self._topics.setdefault(message["topic"], OrderedDict())
        if message["value"] is None:
            facts.pop(message["key"], None)
        elif message["for_s"] > 0:
            self._keep(facts, message["key"], message["for_s"], line)
        for other, send in self._members.items():
            if other != worker:
                send(line)

    def _keep(self, facts: _Facts, key: str, for_s: float, line: bytes) -> None:
        now_s = self._clock()
        facts.pop(key, None)
        facts[key] = now_s + for_s, line
        while facts and (len(facts) > MOST_FACTS or next(iter(facts.values()))[0] <= now_s):
            facts.popitem(last=False)

    def _ask(self, question: Question, message: Message) -> None:
        holder = None if message["holder"] is None else self._claims.holder(message["holder"])
        others = self._members.keys() - {question.asker}
        asked = others if message["holder"] is None else {holder.worker} & others if holder is not None else set()
        if self._questions.ask(question, asked):
            self._over(question)
            return
        line = encoded(
            {
                "do": "asked",
                "asker": question.asker,
                "number": question.number,
                "topic": message["topic"],
                "value": message["value"],
            }
        )
        for worker in asked:
            self._members[worker](line)

    def _answer(self, question: Question, worker: int, value: object) -> None:
        send = self._members.get(question.asker)
        if send is not None and self._questions.is_open(question, worker):
            send(encoded({"do": "answer", "number": question.number, "value": value}))
        if self._questions.answered(question, worker):
            self._over(question)

    def _over(self, question: Question) -> None:
        send = self._members.get(question.asker)
        if send is not None:
            send(encoded({"do": "answered", "number": question.number}))

    def _tell(self, claimant: Claimant, what: str, **fields: object) -> None:
        send = self._members.get(claimant.worker)
        if send is not None:
            send(encoded({"do": what, "number": claimant.number, **fields}))


def encoded(message: Message) -> bytes:
    """Return a message as its line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
