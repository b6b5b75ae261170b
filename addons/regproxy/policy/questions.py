"""Questions that one worker has for the others: whose answers are in, whose are still to come.

A worker that dies answers nothing any more, so a question is over when everybody else who was asked has answered or
died. An asker is told then, and needs no time limit of its own for workers that are alive.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


class Question(NamedTuple):
    """One worker's question."""

    asker: int
    number: int
    """The asker's own number for it."""


@dataclass(slots=True)
class QuestionBook:
    """The questions that are not over."""

    _waited_for: dict[Question, set[int]] = field(default_factory=dict)

    def ask(self, question: Question, workers: set[int]) -> bool:
        """Note whose answers are waited for; returns whether it is over at once, for nobody is there."""
        if not workers:
            return True
        self._waited_for[question] = set(workers)
        return False

    def is_open(self, question: Question, worker: int) -> bool:
        """Whether this worker's answer is waited for."""
        return worker in self._waited_for.get(question, ())

    def answered(self, question: Question, worker: int) -> bool:
        """Note an answer; returns whether that was the last."""
        waited_for = self._waited_for.get(question)
        if waited_for is None:
            return False
        waited_for.discard(worker)
        if waited_for:
            return False
        del self._waited_for[question]
        return True

    def gone(self, worker: int) -> list[Question]:
        """Forget a worker that has died, as asker and as asked; returns the questions that are over by that."""
        for question in [each for each in self._waited_for if each.asker == worker]:
            del self._waited_for[question]
        return [question for question in list(self._waited_for) if self.answered(question, worker)]
