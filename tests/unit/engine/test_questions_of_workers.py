"""Questions by way of the hub: to all, or to the holder of a claim; what was told before is heard before the answer."""

import json
from typing import Any

import pytest

from regproxy.engine.hub import Hub, encoded


@pytest.fixture
def heard() -> dict[int, list[dict[str, Any]]]:
    return {number: [] for number in (1, 2, 3)}


@pytest.fixture
def hub(heard: dict[int, list[dict[str, Any]]]) -> Hub:
    hub = Hub(lambda _: None)
    for number, lines in heard.items():
        hub.join(number, lambda line, lines=lines: lines.append(json.loads(line)))  # type: ignore[misc]
    return hub


def ask(holder: str | None = None) -> bytes:
    return encoded({"do": "ask", "number": 5, "topic": "t", "value": "v", "holder": holder})


def answer(value: object) -> bytes:
    return encoded({"do": "answer", "asker": 1, "number": 5, "value": value})


def test_all_others_are_asked(hub: Hub, heard: dict[int, list[dict[str, Any]]]) -> None:
    """The asker gets each answer, behind what was told before it, and hears when it was the last."""
    hub.hear(1, ask())
    asked = {"do": "asked", "asker": 1, "number": 5, "topic": "t", "value": "v"}
    assert (heard[1], heard[2], heard[3]) == ([], [asked], [asked])
    hub.hear(2, encoded({"do": "fact", "topic": "f", "key": "", "value": 1, "for_s": 0}))
    hub.hear(2, answer("two"))
    hub.hear(3, answer("three"))
    assert [message["do"] for message in heard[1]] == ["fact", "answer", "answer", "answered"]


def test_a_worker_that_dies_is_not_waited_for(hub: Hub, heard: dict[int, list[dict[str, Any]]]) -> None:
    """The question is over with its death, if the others have answered."""
    hub.hear(1, ask())
    hub.hear(3, answer("three"))
    hub.leave(2)
    assert [message["do"] for message in heard[1]] == ["answer", "gone", "answered"]


def test_the_holder_of_a_claim_is_asked(hub: Hub, heard: dict[int, list[dict[str, Any]]]) -> None:
    """Nobody else; without a holder the question is over at once."""
    hub.hear(1, ask("desk"))
    assert [message["do"] for message in heard[1]] == ["answered"]
    hub.hear(3, encoded({"do": "claim", "key": "desk", "number": 1}))
    hub.hear(1, ask("desk"))
    assert heard[2] == []
    assert [message["do"] for message in heard[3]] == ["granted", "asked"]
