"""regproxy.store.clock_jumps, and what the store does about them: ages stay what they were."""

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import time_machine

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.clock_jumps import LEAST_JUMP_S, ClockJumps
from regproxy.store.content import Store
from regproxy.store.layout import Layout
from regproxy.store.records import TagKey, TagRecord

type OpenStore = Callable[..., Store]

YEAR_S = 365 * 24 * 3600.0
OLD, NEW = b"read long ago", b"read lately"


@pytest.mark.parametrize(
    ("wall_s", "steady_s", "jump_s"),
    [
        (10.0, 10.0, 0.0),
        (10.0 + LEAST_JUMP_S - 1, 10.0, 0.0),
        (10.0 + YEAR_S, 10.0, YEAR_S),
        (10.0 - YEAR_S, 10.0, -YEAR_S),
        (3600.0, 3600.0, 0.0),
    ],
    ids=["none", "corrected", "forward", "back", "a long pause"],
)
def test_a_jump_is_what_the_clocks_do_not_share(wall_s: float, steady_s: float, jump_s: float) -> None:
    """Small corrections and long pauses of the process are no jumps; a jump is told once."""
    now = SimpleNamespace(wall_s=1e9, steady_s=5.0)
    jumps = ClockJumps(lambda: float(now.wall_s), lambda: float(now.steady_s))
    now.wall_s += wall_s
    now.steady_s += steady_s

    assert [jumps.since_last_look_s(), jumps.since_last_look_s()] == [jump_s, 0.0]


async def _with_old_and_new(open_store: OpenStore, clock: SimpleNamespace) -> Store:
    store = open_store(inactive_s=1000.0)
    await store.put_content(Digest.of(OLD), OLD, "")
    clock.now_s += 600
    await store.put_content(Digest.of(NEW), NEW, "")
    return store


def _kept(store: Store) -> list[bytes]:
    return [body for body in (OLD, NEW) if Layout(store.directory).content(Digest.of(body)).exists()]


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forward", "back"])
async def test_a_jump_neither_removes_content_nor_keeps_it_for_years(
    open_store: OpenStore, clock: SimpleNamespace, jump_s: float
) -> None:
    """What was unused for ten minutes is unused for ten minutes after the jump, too."""
    store = await _with_old_and_new(open_store, clock)
    upkeep = store._open_upkeep()
    clock.now_s += jump_s

    await upkeep.follow_the_clock(jump_s)
    await store.tidy()
    assert _kept(store) == [OLD, NEW]

    clock.now_s += 500
    await store.tidy()
    assert _kept(store) == [NEW]
    clock.now_s += 600
    await store.tidy()
    assert _kept(store) == []


async def test_housekeeping_notices_that_the_clock_was_set(
    open_store: OpenStore, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is set between two rounds; nothing goes."""
    store = await _with_old_and_new(open_store, clock)
    tidy, rounds = store.tidy, 0

    async def tidy_and_set_the_clock() -> None:
        nonlocal rounds
        rounds += 1
        await tidy()
        if rounds == 1:
            clock.now_s += YEAR_S
        if rounds == 3:
            store.close()

    monkeypatch.setattr(store, "tidy", tidy_and_set_the_clock)
    await store.housekeeping(interval_s=0)

    assert "the clock was set by +31536000 s" in caplog.text
    assert _kept(store) == [OLD, NEW]


async def test_content_used_in_the_future_ages_from_the_start_on(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The clock was a year ahead in the last run, and is right now."""
    clock.now_s += YEAR_S
    store = await _with_old_and_new(open_store, clock)
    store.close()
    clock.now_s -= YEAR_S

    again = open_store(inactive_s=1000.0)
    clock.now_s += 900
    await again.tidy()
    assert _kept(again) == [OLD, NEW]
    clock.now_s += 200
    await again.tidy()
    assert _kept(again) == []


async def test_no_heartbeat_vouches_for_files_of_an_earlier_clock(
    open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """The clock went a day forward, a power cut follows: what was written a moment before is in doubt all the same."""
    store = open_store()
    await store.put_content(Digest.of(NEW), NEW, "")
    layout = Layout(store.directory)
    day_s = 24 * 3600
    written_at_s = layout.content(Digest.of(NEW)).stat().st_mtime - day_s
    os.utime(layout.content(Digest.of(NEW)), (written_at_s, written_at_s))
    os.utime(layout.heartbeat, (written_at_s, written_at_s))
    clock.now_s += day_s

    await store._open_upkeep().follow_the_clock(day_s)
    await store.tidy()

    assert layout.heartbeat.stat().st_mtime == pytest.approx(written_at_s)


async def test_the_real_clock_may_jump_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The whole store under a system clock that is set back and forth: nothing is lost, tags are remembered."""
    key = TagKey("registry.test", "team/app", "1", ("application/json",))
    record = TagRecord(Descriptor("application/json", Digest.of(NEW), len(NEW)), 1.0)
    store = Store(tmp_path_factory.mktemp("cache"), 10**9, inactive_s=3600.0, min_free_bytes=0)
    with time_machine.travel("2026-05-01", tick=True) as clock:
        store.open()
        await store.put_content(Digest.of(NEW), NEW, "application/json")
        await store.put_tag_record(key, record)
        for date in ("2031-01-01", "1970-01-02", "2026-05-01"):
            before_s = store._clock()
            clock.move_to(date)
            await store._open_upkeep().follow_the_clock(store._clock() - before_s)
            await store.tidy()
            assert _kept(store) == [NEW]
            assert await store.tag_record(key) == record
        store.close()
