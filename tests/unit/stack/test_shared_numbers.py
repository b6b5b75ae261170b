"""Whichever worker is asked, what it says of the bucket is of all workers."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from regproxy.engine.hub import Hub
from regproxy.shared.counts import Read, SharedCounts
from regproxy.stack.shared_metrics import shared_numbers
from unit.stack.test_tallies import Worker


def worker(number: int, hub: Hub, directory: Path) -> tuple[Worker, SharedCounts]:
    made, counts = Worker(number, hub, directory), SharedCounts()
    made.core.shared = SimpleNamespace(
        content=SimpleNamespace(counts=counts),
        reading=SimpleNamespace(is_up=True),
        writing=SimpleNamespace(is_up=True),
        uploads=SimpleNamespace(pending_of_all=7),
    )
    return made, counts


async def test_they_are_of_all_workers(tmp_path: Path) -> None:
    """Also of one that has died since, and at one that is started later."""
    hub = Hub(lambda _: None)
    (one, own), (two, others) = (worker(number, hub, tmp_path) for number in (1, 2))
    claim = one.crew.claim("desk")
    tasks = [await one.begin(), await two.begin()]
    for number, counts in enumerate((own, others), 1):
        counts.reads[Read.FOUND] += number
        counts.written += 10 * number
        counts.read_bytes, counts.written_bytes = 100 * number, 1000 * number
    for each in (one, two):
        each.tallies.tell()
    hub.leave(2)
    late, _ = worker(3, hub, tmp_path)
    tasks.append(await late.begin())
    assert claim is not None

    expected: dict[str, Any] = {
        "reading": True,
        "writing": True,
        "waiting": 7,
        "reads": {"found": 3, "missing": 0, "unanswered": 0, "wrong": 0},
        "read_bytes": 300,
        "written": 30,
        "written_bytes": 3000,
    }
    assert [shared_numbers(each.core) for each in (one, two, late)] == [expected] * 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
