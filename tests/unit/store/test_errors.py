"""regproxy.store.errors: everything that leaves the room is a StoreError."""

import errno
import sqlite3
from pathlib import Path

import diskcache
import pytest

from regproxy.oci.digest import Digest
from regproxy.store.errors import DigestMismatch, IngestFailed, StoreError, StoreFull, is_damage, translated


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("made by a test")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "Input/output error"), StoreError),
        (OSError(errno.ENOSPC, "No space left on device"), StoreFull),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StoreFull),
        (_sqlite_error(sqlite3.SQLITE_FULL), StoreFull),
        (_sqlite_error(sqlite3.SQLITE_IOERR_READ), StoreError),
        (sqlite3.ProgrammingError("no code at all"), StoreError),
        (diskcache.Timeout(), StoreError),
    ],
    ids=["i/o", "disk full", "quota", "sqlite full", "sqlite i/o", "sqlite other", "locked"],
)
def test_errors_from_below_become_store_errors(error: Exception, kind: type[StoreError]) -> None:
    """The message names what was tried, where, and what to do, and the cause is kept."""
    with (
        pytest.raises(StoreError, match=r"cannot write the index: /cache/x.*; buy a disk") as raised,
        translated("write the index", Path("/cache/x"), "buy a disk"),
    ):
        raise error

    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


def test_a_store_error_passes_unchanged() -> None:
    """What is already said is not said again."""
    original = StoreFull("full")

    with pytest.raises(StoreFull) as raised, translated("write", Path("/cache"), "-"):
        raise original

    assert raised.value is original


@pytest.mark.parametrize(
    ("code", "damaged"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_READONLY, False),
    ],
)
def test_only_a_broken_file_counts_as_damage(code: int, damaged: bool) -> None:
    """A lock or a read-only disk must not cost the index."""
    assert is_damage(_sqlite_error(code)) is damaged


def test_a_mismatch_names_both_digests() -> None:
    """Whoever reads the log sees what was asked for and what came."""
    error = DigestMismatch(Digest.of(b"good"), Digest.of(b"bad"))

    assert isinstance(error, IngestFailed)
    assert str(error.expected) in str(error)
    assert str(error.actual) in str(error)
