"""The index's file: opened, replaced when it is damaged or gone, and watched.

An index can be lost without harm: what it knows is found again from the content files, but for media types and tags,
which the next pulls bring back. So whatever is wrong with it, the store opens with an empty one. What is only in the
way (locked, full disk, read-only) is an error, and the file stays. What is repaired is told by warnings: mitmproxy ends
after an error that is logged while it starts.
Runs on the index thread only.
"""

import contextlib
import logging
import sqlite3
from pathlib import Path

from regproxy.store.errors import is_unusable
from regproxy.store.index import Index, open_index
from regproxy.store.layout import Layout

_logger = logging.getLogger(__name__)


class IndexFile:
    """`cache.db` of one store. Raises what sqlite3 and the file system raise."""

    def __init__(self, layout: Layout) -> None:
        self.rebuilt = False
        """Whether the index that was opened last was made anew."""
        self._layout = layout
        self.identity = (0, 0)
        """Device and inode of the file that is open."""

    def open(self) -> Index:
        """Open the index, or an empty one in its place."""
        database = self._layout.database
        self.rebuilt = database.stat().st_size == 0  # made by Layout.prepare: there was none
        if self.rebuilt:
            self._remove_logs()
        try:
            index = open_index(self._layout.directory)
        except Exception as error:
            if not is_unusable(error):
                raise
            self._move_aside(error)
            index = open_index(self._layout.directory)
            self.rebuilt = True
        self.identity = _identity(database)
        return index

    def replace(self, index: Index, damaged_by: Exception | None) -> Index:
        """Close an open index that is of no use any more, and open what takes its place."""
        with contextlib.suppress(sqlite3.Error):
            index.close()
        if damaged_by is None:
            _logger.warning(
                "the cache index %s was removed or replaced: rebuilding it from the content files",
                self._layout.database,
            )
            self._remove_logs()
        else:
            self._move_aside(damaged_by)
        return self.open()

    def is_another(self) -> bool:
        """Whether the open index is not the file of that name any more. Makes anew what is missing besides."""
        if not self._layout.is_complete():
            self._layout.prepare()
        return _identity(self._layout.database) != self.identity

    def is_there(self, identity: tuple[int, int]) -> bool:
        """Whether the file of that name is this one."""
        return _identity(self._layout.database) == identity

    def _move_aside(self, reason: Exception) -> None:
        database = self._layout.database
        aside = database.with_name("cache.db.damaged")
        _logger.warning(
            "the cache index %s is damaged (%s): moved to %s, rebuilding it from the content files",
            database,
            reason,
            aside.name,
        )
        with contextlib.suppress(FileNotFoundError):
            database.replace(aside)
        self._remove_logs()
        self._layout.prepare()

    def _remove_logs(self) -> None:
        # They are another index's: SQLite would play them into the new one.
        for suffix in ("-wal", "-shm"):
            self._layout.database.with_name(f"cache.db{suffix}").unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    """Return which file this is, (0, 0) when there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino
