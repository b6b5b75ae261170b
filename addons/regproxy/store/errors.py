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
_CIRCUMSTANCES = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""What SQLite says of the system it runs on; everything else it says of the file."""


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


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is broken, as against busy, read-only or on a bad disk."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _DAMAGE


def is_unusable(error: BaseException) -> bool:
    """Whether an index that fails like this when it is opened can only be replaced.

    Damage shows in many ways there: a table that is not, a pragma with a strange value, text that is none.
    """
    if isinstance(error, sqlite3.Error):
        return _primary_code(error) not in _CIRCUMSTANCES
    return isinstance(error, ValueError | TypeError | OverflowError)


def damage(words: str) -> sqlite3.DatabaseError:
    """Return the error for damage that SQLite found but does not raise."""
    error = sqlite3.DatabaseError(words)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & _LOW_BYTE


def _means_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return _primary_code(error) == sqlite3.SQLITE_FULL
