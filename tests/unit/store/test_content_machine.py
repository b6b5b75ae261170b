"""The store as a state machine: whatever happens in whatever order, digests are true and the cap holds."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.errors import DigestMismatch
from regproxy.store.eviction import OUTSIDE_THE_CAP_BYTES
from regproxy.store.flights import Fetch
from regproxy.store.ingest import Ingest
from regproxy.store.layout import Layout
from regproxy.store.recovery import beat

CAP_BYTES = 1024 * 1024
INACTIVE_S = 50.0
BODIES = [bytes([number]) * size for number, size in enumerate([0, 1, 5_000, 40_000, 200_000, 400_000, 700_000])]
DIGESTS = [Digest.of(body) for body in BODIES]

WHICH = st.integers(0, len(BODIES) - 1)


class StoreMachine(RuleBasedStateMachine):
    """Puts, downloads whole, broken and wrong, reads, time, restarts and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.loop = asyncio.new_event_loop()
        self.now_s = 1_000_000_000.0

    @initialize()
    def start(self) -> None:
        """Open the store."""
        self.store = Store(self.directory / "cache", CAP_BYTES, INACTIVE_S, 0, lambda: self.now_s)
        self.store.open()

    @rule(which=WHICH)
    def put(self, which: int) -> None:
        """Store a manifest: nothing is running, so anything below the cap fits."""
        self.loop.run_until_complete(self.store.put_content(DIGESTS[which], BODIES[which], "application/json"))
        assert self._read(which) == BODIES[which]

    @rule(which=WHICH, share=st.floats(0, 1), announce=st.booleans())
    def download_breaks(self, which: int, share: float, announce: bool) -> None:
        """Break off somewhere; what arrived is kept."""

        async def fetch(ingest: Ingest) -> None:
            start = ingest.missing_from()
            stop = max(start, int(len(BODIES[which]) * share))
            await ingest.begin(len(BODIES[which]) if announce else None, None)
            await ingest.write([BODIES[which][start:stop]])
            raise ConnectionResetError

        self._download(which, fetch, ConnectionResetError)

    @rule(which=WHICH, announce=st.booleans())
    def download_completes(self, which: int, announce: bool) -> None:
        """End a download well, perhaps a resumed one."""

        async def fetch(ingest: Ingest) -> None:
            await ingest.begin(len(BODIES[which]) if announce else None, None)
            await ingest.write([BODIES[which][ingest.missing_from() :]])
            await ingest.finish()

        self._download(which, fetch, None)

    @rule(which=WHICH.filter(bool))
    def download_is_wrong(self, which: int) -> None:
        """Send something else."""

        async def fetch(ingest: Ingest) -> None:
            await ingest.begin(len(BODIES[which]), None)
            await ingest.write([b"?" * (len(BODIES[which]) - ingest.missing_from())])
            await ingest.finish()

        self._download(which, fetch, DigestMismatch)

    @rule(which=WHICH)
    def read(self, which: int) -> None:
        """Get a hit or a miss, nothing else."""
        assert self._read(which) in {None, BODIES[which]}

    @rule(seconds=st.floats(0, INACTIVE_S * 1.5))
    def time_passes(self, seconds: float) -> None:
        """Let content grow old."""
        self.now_s += seconds

    @rule()
    def tidy(self) -> None:
        """Keep house for one round."""
        self.loop.run_until_complete(self.store.tidy())

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """Restart after a clean close or without."""
        self.store.close()
        if crash:
            beat(Layout(self.store.directory))
        self.start()

    @rule(which=WHICH)
    def power_loss_spoils_a_file(self, which: int) -> None:
        """Take a file's data and leave its name."""
        self.store.close()
        content = Layout(self.store.directory).content(DIGESTS[which])
        if content.exists():
            content.write_bytes(bytes(content.stat().st_size)[:-1])
        beat(Layout(self.store.directory))
        self.start()

    @invariant()
    def content_is_what_its_name_says(self) -> None:
        """Find nothing else under any digest."""
        for digest in DIGESTS:
            stored = self.store.open_content(digest)
            if stored is not None:
                with stored:
                    body = os.pread(stored.fileno(), stored.size_bytes + 1, 0)
                assert Digest.of(body) == digest

    @invariant()
    def the_cap_holds_on_paper_and_on_disk(self) -> None:
        """Find the counted bytes below the cap, and `du` below the cap and the documented slack."""
        assert self.store.usage.used_bytes <= CAP_BYTES
        assert self._on_disk_bytes() <= CAP_BYTES + OUTSIDE_THE_CAP_BYTES
        files_bytes = self._on_disk_bytes("content") + self._on_disk_bytes("partial")
        usage = self.store.usage
        assert files_bytes <= usage.content_bytes + usage.partial_bytes + OUTSIDE_THE_CAP_BYTES // 8

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.store.close()
        self.loop.close()
        shutil.rmtree(self.directory)

    def _read(self, which: int) -> bytes | None:
        stored = self.store.open_content(DIGESTS[which])
        if stored is None:
            return None
        with stored:
            return os.pread(stored.fileno(), stored.size_bytes + 1, 0)

    def _download(self, which: int, fetch: Fetch, failure: type[Exception] | None) -> None:
        async def download() -> None:
            ingest = self.store.join_or_start(DIGESTS[which], fetch)
            expected = contextlib.nullcontext() if failure is None else pytest.raises(failure)
            with expected:
                await ingest.verified()
            flights = self.store._flights
            assert flights is not None
            await asyncio.gather(*(flight.task for flight in flights._aloft if flight.task), return_exceptions=True)

        self.loop.run_until_complete(download())

    def _on_disk_bytes(self, below: str = "") -> int:
        return sum(path.lstat().st_blocks * 512 for path in (self.store.directory / below).rglob("*"))


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
