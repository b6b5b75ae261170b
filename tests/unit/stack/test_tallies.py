"""Workers tell one another what they count: each has the sums of all, also one that comes later."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regproxy.engine.crew import Crew, Place
from regproxy.engine.hub import Hub, encoded
from regproxy.oci.names import Registry
from regproxy.stack.desk import Desk
from regproxy.stack.elsewhere import Elsewhere
from regproxy.stack.recent_requests import RecentRequests
from regproxy.stack.statistics import Statistics, Trouble
from regproxy.stack.tallies import Tallies

NOON_S = 1_700_000_000.0


class Worker:
    """One of them, with a crew that is connected to the hub without sockets."""

    def __init__(self, number: int, hub: Hub, directory: Path) -> None:
        meter = SimpleNamespace(received_bytes=Counter[str](), failures=Counter[tuple[str, ...]]())
        quotas = SimpleNamespace(quotas=list)
        core: Any = SimpleNamespace(
            desk=Desk(),
            elsewhere=Elsewhere(),
            ready=True,
            shared=None,
            store=SimpleNamespace(is_open=False),
            upstream=SimpleNamespace(meter=meter, quotas=quotas),
            settings=SimpleNamespace(cache_directory=directory),
        )
        self.core, self.meter, self.recent = core, meter, RecentRequests()
        self.statistics = Statistics(core, lambda: NOON_S)
        self.tallies = Tallies(core, self.statistics, self.recent)
        self.crew = Crew(Place(number, number == 1, -1, -1, ()))
        self.crew._line.send = lambda message: hub.hear(number, encoded(message))  # type: ignore[method-assign]
        hub.join(number, self.crew._hear)
        core.desk.share(self.crew)
        self.tallies.share(self.crew)

    async def begin(self) -> asyncio.Task[None]:
        """Begin to tell."""
        task = asyncio.get_running_loop().create_task(self.tallies.run())
        for _ in range(20):
            await asyncio.sleep(0)
        return task

    def count(self, hits: int) -> None:
        """Count as requests would."""
        self.statistics.today().hits += hits
        for _ in range(hits):
            self.statistics.busiest.count(Registry.parse("quay.io"), "team/app", 10, hit=True)
        self.recent.by_cache_status["HIT"] += hits
        self.meter.received_bytes["quay.io"] += 100 * hits

    def seen(self) -> tuple[int, int, int, int]:
        """Return what this worker would answer."""
        (_, _, reads), *_ = self.statistics.busiest.all()
        by_status = self.recent.by_cache_status + self.core.elsewhere.by_cache_status
        received = self.meter.received_bytes + self.core.elsewhere.received_bytes
        return self.statistics.today().hits, reads.requests, by_status["HIT"], received["quay.io"]


@pytest.fixture
def hub() -> Hub:
    return Hub(lambda _: None)


async def test_each_has_the_sums_of_all(hub: Hub, tmp_path: Path) -> None:
    """What is told is told once, however often; what was heard is not told back."""
    workers = [Worker(number, hub, tmp_path) for number in (1, 2, 3)]
    claim = workers[0].crew.claim("desk")
    tasks = [await worker.begin() for worker in workers]
    for _ in range(2):
        for number, worker in enumerate(workers, 1):
            worker.count(number)
            worker.tallies.tell()
        for worker in workers:
            worker.tallies.tell()
    assert [worker.seen() for worker in workers] == [(12, 12, 12, 1200)] * 3
    assert claim is not None
    for task in tasks:
        task.cancel()


async def test_who_comes_later_learns_what_was_counted(hub: Hub, tmp_path: Path) -> None:
    """Also of a worker that is gone; errors with their counts."""
    one, two = (Worker(number, hub, tmp_path) for number in (1, 2))
    claim = one.crew.claim("desk")
    tasks = [await worker.begin() for worker in (one, two)]
    two.count(5)
    trouble = Trouble("quay.io", "team/app", 502, "no answer", "", NOON_S, "192.0.2.1", "podman")
    two.statistics.on_trouble(trouble)
    two.statistics.hear_trouble(trouble)
    two.tallies.tell()
    one.count(1)
    hub.leave(2)
    late = Worker(3, hub, tmp_path)
    tasks.append(await late.begin())
    assert late.seen() == one.seen() == (6, 6, 6, 600)
    assert [each.count for each in late.statistics.troubles()] == [1]
    late.tallies.tell()
    assert one.seen() == (6, 6, 6, 600)
    assert claim is not None
    for task in tasks:
        task.cancel()
