"""The hub: what one worker says reaches the others, in order, and what is worth knowing later is kept."""

import json
from typing import Any

import pytest

from regproxy.engine.hub import MOST_FACTS, Hub, encoded


class Ear:
    """What one worker hears."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def __call__(self, line: bytes) -> None:
        """Hear a line."""
        self.heard.append(json.loads(line))

    def take(self) -> list[dict[str, Any]]:
        """Return what was heard since the last call."""
        taken, self.heard = self.heard, []
        return taken


@pytest.fixture
def hub() -> Hub:
    return Hub(lambda _: None)


@pytest.fixture
def ears(hub: Hub) -> dict[int, Ear]:
    """Return the ears of three workers."""
    ears = {number: Ear() for number in (1, 2, 3)}
    for number, ear in ears.items():
        hub.join(number, ear)
    return ears


def fact(value: object, for_s: float = 60.0, key: str = "a") -> bytes:
    return encoded({"do": "fact", "topic": "t", "key": key, "value": value, "for_s": for_s})


def claim(number: int = 1) -> bytes:
    return encoded({"do": "claim", "key": "k", "number": number})


class TestFacts:
    def test_a_fact_is_heard_by_the_others(self, hub: Hub, ears: dict[int, Ear]) -> None:
        """Not by the one that told it."""
        hub.hear(1, fact("x"))

        assert [ear.take() for ear in ears.values()] == [
            [],
            *[[{"do": "fact", "topic": "t", "key": "a", "value": "x"}]] * 2,
        ]

    def test_a_later_worker_hears_the_last_of_each(self, hub: Hub, ears: dict[int, Ear]) -> None:
        """Not what has ended, is over, or was only for the moment."""
        now_s = 0.0
        hub = Hub(lambda _: None, lambda: now_s)
        for told in (fact("x"), fact("y"), fact("short", 5.0, "b"), fact("ended", key="c"), fact(None, key="c")):
            hub.hear(1, told)
        hub.hear(1, fact("probe", 0.0))
        now_s = 10.0
        late = ears[1]
        hub.join(4, late)

        assert [message["value"] for message in late.take()] == ["y"]

    def test_many_of_one_kind_do_not_displace_another(self, hub: Hub, ears: dict[int, Ear]) -> None:
        """Answers 404 are told all day long; a drill, or a login that was accepted, once."""
        hub.hear(1, encoded({"do": "fact", "topic": "rare", "key": "a", "value": "kept", "for_s": 60.0}))
        for number in range(MOST_FACTS + 1):
            hub.hear(1, fact(number, key=str(number)))
        late = ears[1]
        hub.join(4, late)

        assert [message["value"] for message in late.take()] == ["kept", *range(1, MOST_FACTS + 1)]

    def test_what_counts_no_more_is_not_kept(self) -> None:
        """It would take the supervisor's memory."""
        now_s = 0.0
        hub = Hub(lambda _: None, lambda: now_s)
        for number in range(3):
            hub.hear(1, fact("x" * 8192, 5.0, str(number)))
        now_s = 10.0
        hub.hear(1, fact("y"))

        assert [list(facts) for facts in hub._topics.values()] == [["a"]]


class TestClaims:
    def test_who_follows_hears_what_was_said_and_the_end(self, hub: Hub, ears: dict[int, Ear]) -> None:
        """And the holder is told that it is followed."""
        hub.hear(1, claim())
        hub.hear(1, encoded({"do": "say", "key": "k", "number": 1, "said": "half"}))
        hub.hear(2, claim(7))
        hub.hear(1, encoded({"do": "release", "key": "k", "number": 1, "said": "all"}))

        assert [message["do"] for message in ears[1].take()] == ["granted", "followed"]
        assert ears[2].take() == [
            {"do": "said", "number": 7, "said": "half"},
            {"do": "over", "number": 7, "said": "all"},
        ]

    def test_the_heir_of_a_dead_worker_is_told(self, hub: Hub, ears: dict[int, Ear]) -> None:
        """With the last word of the dead one, and whether others follow."""
        for number in ears:
            hub.hear(number, claim())
        hub.hear(1, encoded({"do": "say", "key": "k", "number": 1, "said": "half"}))
        for ear in ears.values():
            ear.take()
        hub.leave(1)

        assert ears[1].take() == []
        assert ears[2].take() == [
            {"do": "gone", "worker": 1},
            {"do": "granted", "number": 1, "said": "half", "followed": True},
        ]
        assert [message["do"] for message in ears[3].take()] == ["gone"]


@pytest.mark.parametrize("line", [b"no json", b"[]", b'{"do": "dance"}', b'{"do": "claim"}'])
def test_what_is_no_message_is_an_error(hub: Hub, line: bytes) -> None:
    """The supervisor ends a worker that says it."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        hub.hear(1, line)


def test_the_first_to_serve_is_told(ears: dict[int, Ear]) -> None:
    """The supervisor waits for it before it starts the others."""
    ready: list[int] = []
    hub = Hub(ready.append)
    hub.join(2, ears[2])
    hub.hear(2, encoded({"do": "ready"}))

    assert ready == [2]
