"""What a worker that dies may have left is looked for at once, not when the next round is due."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from regproxy.store.crew.stamps import EPOCH, LOOKED_AT_EPOCH
from regproxy.store.layout import Layout
from unit.store.crew.crew_of_stores import crew_of_stores

NEVER_S = 3600.0
LIMIT_S = 30.0


@pytest.mark.parametrize("victim", [0, 1], ids=["the housekeeper", "another"])
async def test_the_cache_can_be_closed_cleanly_soon_after_a_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """Whoever keeps house then has looked, long before its next round, and the next start has nothing to verify."""
    monkeypatch.setattr("regproxy.store.crew.store.FIRST_WORD_S", 0.01)
    with crew_of_stores(tmp_path) as members:
        loop, stamps = asyncio.get_running_loop(), members[0].store._stamps
        keeping = []
        for member in members:
            member.crew.on_gone(member.store.worker_gone)
            keeping.append(loop.create_task(member.store.housekeeping(NEVER_S)))
            await asyncio.sleep(0.5)  # its first round is over: the next is due in an hour
        stamps.change(EPOCH)
        keeping[victim].cancel()
        members[victim].store.close()
        members[victim].die()
        deadline_s = loop.time() + LIMIT_S
        while stamps.word(EPOCH) != stamps.word(LOOKED_AT_EPOCH):
            assert loop.time() < deadline_s
            await asyncio.sleep(0.01)
        for each in keeping:
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each
    assert not Layout(tmp_path).heartbeat.exists()
