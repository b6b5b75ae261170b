"""A process with the store is killed at any moment, again and again; some of its files are lost as in a power cut.

`make crash` runs 200 rounds of each; the run of every day has a few.
"""

import asyncio
import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.crash_source import BODIES, BODY_OF, CAP_BYTES, source
from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.partial import Progress
from regproxy.store.records import digest_of_key
from regproxy.store.recovery import beat

ROOT = Path(__file__).parents[3]
LONGEST_LIFE_S = 0.4
MANY_ROUNDS = 200

type Tally = collections.Counter[str]


def _live_and_die(directory: Path, port: int, seed: str, chance: random.Random) -> list[str]:
    """Start a child, kill it at a random moment after it began to open the store, and return what it said."""
    environment = {"PYTHONPATH": f"{ROOT / 'addons'}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "lab.crash_child", str(directory), str(port), seed]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        first = child.stdout.readline()
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))  # how long it lives, not a wait for something
        child.send_signal(signal.SIGKILL)
        said = (first + child.stdout.read()).decode().splitlines()
        complaints = child.stderr.read().decode()
    assert child.returncode == -signal.SIGKILL, complaints
    return said


def _lose(layout: Layout, chance: random.Random) -> None:
    """Take what a power cut may take: data under a name that is on the disk, the log of the index, a sidecar."""
    files = [path for area in ("content", "partial") for path in (layout.directory / area).rglob("*") if path.is_file()]
    for path in chance.sample(files, k=len(files) // 3):
        size_bytes = path.stat().st_size
        match chance.randrange(3):
            case 0:
                path.write_bytes(bytes(size_bytes))
            case 1:
                os.truncate(path, size_bytes // 2)
            case _:
                path.unlink()
    if layout.stopped.exists():
        layout.stopped.write_text("the run of the machine before")
    if chance.random() < 0.5:
        for suffix in ("-wal", "-shm"):
            layout.database.with_name(f"cache.db{suffix}").unlink(missing_ok=True)


def _verify(layout: Layout, tally: Tally, *, power_was_cut: bool) -> None:
    """Restart: all that is served is right, rows and files match, the cap holds, unfinished files can be resumed."""
    store = Store(layout.directory, CAP_BYTES, inactive_s=3600, min_free_bytes=0)
    store.open()
    try:
        _verify_partials(layout, tally, power_was_cut=power_was_cut)
        _verify_served(store)
        asyncio.run(store.tidy())
        _verify_served(store)
        ledger = store._ledger
        assert ledger is not None
        files = {digest: status.st_size for digest, status in layout.stored()}
        assert {digest: Digest.of(layout.content(digest).read_bytes()) for digest in files} == {
            digest: digest for digest in files
        }
        assert set(map(digest_of_key, ledger.known_content())) == set(files)
        assert store.usage.content_bytes == sum(map(on_disk_bytes, files.values()))
        assert store.usage.used_bytes <= CAP_BYTES
        tally["contents"] += len(files)
    finally:
        store.close()


def _verify_served(store: Store) -> None:
    for digest in BODY_OF:
        stored = store.open_content(digest)
        if stored is not None:
            with stored:
                assert os.pread(stored.fileno(), stored.size_bytes + 1, 0) == BODY_OF[digest]


def _verify_partials(layout: Layout, tally: Tally, *, power_was_cut: bool) -> None:
    names = {path.name for path in (layout.directory / "partial").iterdir()}
    partials = {name for name in names if not name.endswith(".json")}
    assert names == partials | {f"{name}.json" for name in partials}
    tally["unfinished"] += len(partials)
    for name in partials:
        digest = Digest.parse(name.replace("-", ":", 1))
        progress = Progress.from_json(layout.sidecar(digest).read_text())
        there = layout.partial(digest).read_bytes()
        for start, end in progress.intervals.spans:
            assert power_was_cut or there[start:end] == BODY_OF[digest][start:end]
            assert end <= len(there)


def _rounds(directory: Path, rounds: int, seed: str, *, power_is_cut: bool) -> Tally:
    layout, chance, tally = Layout(directory), random.Random(seed), collections.Counter[str]()  # noqa: S311
    with source() as port:
        for number in range(rounds):
            said = _live_and_die(directory, port, f"{seed} {number}", chance)
            tally.update(line.split()[0] for line in said)
            assert not [line for line in said if line.startswith("wrong")], f"round {number} of {seed!r}"
            if power_is_cut:
                _lose(layout, chance)
            _verify(layout, tally, power_was_cut=power_is_cut)
            if chance.random() < 0.5:
                beat(layout)  # as if it had been killed once more
    tally["rounds"] = rounds
    sys.stdout.write(f"{seed}: {dict(tally)}\n")
    return tally


def test_a_store_that_is_killed_at_any_moment_serves_and_keeps_what_is_right(tmp_path: Path) -> None:
    """Some rounds in a row on one directory; whatever a kill left unfinished is resumed or gone."""
    tally = _rounds(tmp_path / "cache", 8, "kill", power_is_cut=False)

    assert tally["open"] > 0
    assert tally["contents"] > len(BODIES) / 2
    assert tally["mismatch"] == 0


def test_a_power_cut_that_takes_data_leaves_nothing_wrong_behind(tmp_path: Path) -> None:
    """The same with files that are empty, short or gone afterwards, and an index without its log."""
    assert _rounds(tmp_path / "cache", 5, "power", power_is_cut=True)["contents"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("power_is_cut", [False, True], ids=["killed", "power-cut"])
def test_hundreds_of_kills_lose_nothing(tmp_path: Path, power_is_cut: bool) -> None:
    """200 rounds on one directory."""
    tally = _rounds(tmp_path / "cache", MANY_ROUNDS, f"many {power_is_cut}", power_is_cut=power_is_cut)

    assert tally["open"] > MANY_ROUNDS / 4
    assert tally["unfinished"] > 0
    assert tally["resumed"] > 0
