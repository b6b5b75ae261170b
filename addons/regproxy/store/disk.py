"""How diskcache keeps keys and values: text in the row, content as an adopted file, and never a pickle.

diskcache's own Disk pickles what it does not know and unpickles whatever the table says is pickled, which runs code of
whoever could write to the directory (CVE-2025-69872). Here keys are text, values are text or an AdoptedFile, and every
other form is refused in both directions. A finished file is adopted by a rename: no byte is copied.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW, UNKNOWN

from regproxy.store.errors import StoreError
from regproxy.store.layout import CONTENT_NAME, DIRECTORY_MODE, Layout, on_disk_bytes
from regproxy.store.records import digest_of_key


@dataclass(frozen=True, slots=True)
class AdoptedFile:
    """A value: the finished, verified file that becomes the content of its key."""

    path: Path
    """Where the file is now: on the same file system as the store."""


class ContentDisk(diskcache.Disk):  # type: ignore[misc] # diskcache has no types
    """Text keys; text values in the row, AdoptedFile values as files named by their digest."""

    _directory: str

    def put(self, key: object) -> tuple[str, bool]:
        """Return the database key; StoreError for anything but text."""
        if type(key) is not str:
            raise StoreError(f"the cache index takes text keys only, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Return the key; StoreError for a key that would have to be unpickled."""
        if not raw or type(key) is not str:
            raise StoreError(f"the cache index in {self._directory} has a key that is not text: remove cache.db")
        return key

    def store(self, value: object, read: object, key: object = UNKNOWN) -> tuple[int, int, str | None, str | None]:
        """Return the columns size, mode, filename, value; a file is renamed to its place on the way."""
        if type(value) is str and not read:
            return 0, MODE_RAW, None, value
        if isinstance(value, AdoptedFile) and isinstance(key, str):
            filename = Layout(Path(self._directory)).content_name(digest_of_key(key))
            target = Path(self._directory) / filename
            # The column counts whole blocks, so that the sum of the column is what the disk really loses.
            size_bytes = on_disk_bytes(value.path.stat().st_size)
            for directory in (target.parent.parent, target.parent):
                directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            os.rename(value.path, target)  # noqa: PTH104 - the operation is rename(2), also over an equal file
            return size_bytes, MODE_BINARY, filename, None
        raise StoreError(f"the cache index takes text and adopted files, not {type(value).__name__}")

    def fetch(self, mode: int, filename: str | None, value: Any, read: object) -> str:
        """Return the text, or the relative name of the content file; StoreError for every other mode."""
        if mode == MODE_RAW and type(value) is str and not read:
            return value
        if mode == MODE_BINARY and filename is not None:
            return filename
        raise StoreError(f"the cache index in {self._directory} holds a value of mode {mode}, which is never read")

    def remove(self, file_path: str) -> None:
        """Delete a content file; a name that is not one is left alone, a file that is gone is fine."""
        if CONTENT_NAME.fullmatch(file_path) is None:
            raise StoreError(
                f"the cache index in {self._directory} names {file_path!r}, which is not its own to delete"
            )
        with contextlib.suppress(FileNotFoundError):
            (Path(self._directory) / file_path).unlink()
