"""The errors of the store, and the one place where those of SQLite, diskcache and the file system become them.

Strategy: everything that leaves the room is a StoreError, so that an adapter catches one class, says it once and goes
on without the cache. StoreFull is told apart because nothing is broken, and IngestFailed because it ends one download.
"""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import diskcache

from regproxy.oci.digest import Digest

_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOW_BYTE = 0xFF  # extended SQLite result codes keep the primary one in the low byte
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class StoreError(Exception):
    """The store cannot do what was asked; the pull can go on without it."""


class StoreFull(StoreError):  # noqa: N818 - the state of the store, not an error in it
    """No amount of eviction makes room: it is larger than the cap, or the disk is full of other things."""


class IngestFailed(StoreError):  # noqa: N818 - reads as the outcome of an ingest
    """The content did not arrive; the message tells readers why."""


class DigestMismatch(IngestFailed):
    """All bytes arrived and they are not the content that was asked for; nothing was stored."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f"content asked for as {expected} hashes to {actual}: not stored, not served")
        self.expected = expected
        self.actual = actual


@contextlib.contextmanager
def translated(action: str, path: Path, remedy: str) -> Iterator[None]:
    """Turn SQLite's, diskcache's and the system's errors into StoreError: action, path, reason, remedy."""
    try:
        yield
    except diskcache.Timeout as error:
        raise StoreError(f"cannot {action}: {path} stayed locked by another process; {remedy}") from error
    except (OSError, sqlite3.Error) as error:
        kind = StoreFull if _means_full(error) else StoreError
        raise kind(f"cannot {action}: {path}: {error}; {remedy}") from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken, as against busy, read-only or on a bad disk."""
    return getattr(error, "sqlite_errorcode", 0) & _LOW_BYTE in _DAMAGE


def _means_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return getattr(error, "sqlite_errorcode", 0) & _LOW_BYTE == sqlite3.SQLITE_FULL
