"""Room under the cap when several workers fill it: the accounts are in the index, and each change of them is alone.

The ledger holds the store's lock while it changes anything; so the accounts are read when another worker has changed
them, worked on as those of a store that works alone, and written back. A worker that dies leaves its partial files as
they are; `take_orphans` gives them back to eviction.
"""

import os
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.store.accesses import Accesses
from regproxy.store.crew.stamps import PINS, ROOM, Stamps
from regproxy.store.eviction import Room
from regproxy.store.index import Index
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.pins import PIN_PREFIX

_TABLE = (
    "CREATE TABLE IF NOT EXISTS Held (kind TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL,"
    " since_s REAL NOT NULL, owner INTEGER NOT NULL, PRIMARY KEY (kind, digest)) WITHOUT ROWID"
)
_FILLED, _IDLE, _UNINDEXED, _ASIDE = "filled", "idle", "unindexed", "aside"

type _Rows = dict[tuple[str, str], tuple[int, float, int]]


class CrewRoom(Room):
    """The accounts as one worker sees them. Used by the index thread, with the store's lock held."""

    def __init__(  # noqa: PLR0913, PLR0917 - as Room, and what is shared
        self, layout: Layout, index: Index, accesses: Accesses, cap_bytes: int, min_free_bytes: int, stamps: Stamps
    ) -> None:
        super().__init__(layout, index, accesses, cap_bytes, min_free_bytes)
        self._stamps = stamps
        self._owners: dict[Digest, int] = {}
        self._seen: int | None = None
        self._pins_seen: int | None = None
        self._rows: _Rows = {}
        index.run(_TABLE)

    def begin(self) -> None:
        """Read the accounts and the pins, if another worker has changed them."""
        if self._stamps.current(PINS) != self._pins_seen:
            self._pins_seen = self._stamps.current(PINS)
            super().read_pins()
        stamp = self._stamps.current(ROOM)
        if stamp != self._seen:
            self._read()
            self._seen = stamp

    def begin_anew(self) -> None:
        """Forget what the workers of an earlier run have left in the accounts."""
        self._index.run("DELETE FROM Held")
        self._read()

    def end(self) -> None:
        """Write what has changed."""
        rows = self._as_rows()
        if rows == self._rows:
            return
        with self._index.transact():
            for key in self._rows.keys() - rows.keys():
                self._index.run("DELETE FROM Held WHERE kind = ? AND digest = ?", key)
            for key, row in rows.items():
                if self._rows.get(key) != row:
                    self._index.run("REPLACE INTO Held VALUES (?, ?, ?, ?, ?)", (*key, *row))
        self._rows = rows
        self._stamps.change(ROOM)
        self._seen = self._stamps.current(ROOM)

    def read_pins(self) -> None:
        """Take over the pins, which have just been changed, and have the others do so."""
        self._stamps.change(PINS)
        self._pins_seen = self._stamps.current(PINS)
        super().read_pins()

    def change_index(self, index: Index, unindexed: dict[Digest, int]) -> None:
        """Go on with a new index, as `Room.change_index`; the accounts are written to it at the end."""
        index.run(_TABLE)
        super().change_index(index, unindexed)
        self._rows = {}
        self._seen = self._stamps.current(ROOM)

    def follow_index(self, index: Index) -> None:
        """Go on with an index that another worker has put in the place of the last one.

        It lacks the pins and the accounts, if that worker had just been started and knew of none.
        """
        index.run(_TABLE)
        self._index = index
        if self._pins and not index.texts(PIN_PREFIX):
            for key, text in self._pins.items():
                index.put_text(key, text, 0.0)
            self._pins_seen = None
        if self._rows and not index.run("SELECT 1 FROM Held LIMIT 1").fetchall():
            self._rows = {}
            self._seen = self._stamps.current(ROOM)
        else:
            self._seen = None

    def shift_times(self, by_s: float) -> None:
        """Move the times of the accounts by so many seconds; they are read anew."""
        self._index.run("UPDATE Held SET since_s = since_s + ? WHERE since_s > 0", (by_s,))
        self._seen = None
        self._stamps.change(ROOM)

    def claim(self, digest: Digest) -> bool:
        """Protect the partial file of a starting ingest, or of one that is taken over; whether there may be one."""
        is_idle = super().claim(digest)
        is_there = is_idle or digest in self._partials
        if is_there:
            self._owners[digest] = os.getpid()
        return is_there

    def reserve(self, digest: Digest, total_bytes: int) -> None:
        """Make room as `Room.reserve`, for this worker."""
        super().reserve(digest, total_bytes)
        self._owners[digest] = os.getpid()

    def settle(self, digest: Digest, kept_bytes: int, now_s: float) -> None:
        """Note the end as `Room.settle`."""
        super().settle(digest, kept_bytes, now_s)
        self._owners.pop(digest, None)

    def take_orphans(self, now_s: float) -> None:
        """Give back what workers that have died were filling, if nobody has taken it over."""
        for digest, owner in list(self._owners.items()):
            if not Path(f"/proc/{owner}").exists():
                path = self._layout.partial(digest)
                kept_bytes = path.stat().st_size if path.exists() else 0
                self.settle(digest, on_disk_bytes(kept_bytes), now_s)

    def _as_rows(self) -> _Rows:
        rows: _Rows = {}
        for digest, taken_bytes in self._partials.items():
            since_s = self._idle_since.get(digest)
            kind = _FILLED if since_s is None else _IDLE
            rows[kind, str(digest)] = taken_bytes, since_s or 0.0, self._owners.get(digest, 0)
        for digest, taken_bytes in self.unindexed.items():
            rows[_UNINDEXED, str(digest)] = taken_bytes, 0.0, 0
        if self._set_aside_bytes:
            rows[_ASIDE, ""] = self._set_aside_bytes, 0.0, os.getpid()
        return rows

    def _read(self) -> None:
        self._rows = {
            (kind, digest): (taken_bytes, since_s, owner)
            for kind, digest, taken_bytes, since_s, owner in self._index.run("SELECT * FROM Held").fetchall()
        }
        by_age = sorted(self._rows.items(), key=lambda each: each[1][1])
        parsed = [(kind, Digest.parse(text), row) for (kind, text), row in by_age if kind != _ASIDE]
        self._partials = {digest: row[0] for kind, digest, row in parsed if kind in {_FILLED, _IDLE}}
        self._idle_since = {digest: row[1] for kind, digest, row in parsed if kind == _IDLE}
        self._owners = {digest: row[2] for kind, digest, row in parsed if kind == _FILLED}
        self.unindexed = {digest: row[0] for kind, digest, row in parsed if kind == _UNINDEXED}
        aside = self._rows.get((_ASIDE, ""))
        self._set_aside_bytes = aside[0] if aside and Path(f"/proc/{aside[2]}").exists() else 0
