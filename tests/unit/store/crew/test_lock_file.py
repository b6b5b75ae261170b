"""A lock goes on when its file is gone, and never closes what is not its own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regproxy.store.crew.sharing import LockFile
from regproxy.store.errors import StoreError
from regproxy.store.layout import Layout
from unit.store.crew.crew_of_stores import crew_of_stores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "workers.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[LockFile]:
    path.parent.mkdir()
    lock = LockFile(path)
    yield lock
    lock.close()


@contextmanager
def strangers() -> Iterator[list[int]]:
    """Yield file descriptors that are none of the lock's; they get the numbers that are free."""
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
    try:
        yield fds
        for fd in fds:
            os.fstat(fd)
    finally:
        for fd in fds:
            os.close(fd)


def make_unusable(path: Path) -> None:
    """Let nobody open a file of this name."""
    path.unlink()
    path.mkdir()


def take(lock: LockFile) -> None:
    with lock.alone():
        pass


def test_a_lock_that_cannot_be_opened_anew_closes_nothing_of_others(path: Path, lock: LockFile) -> None:
    """Neither then nor later."""
    make_unusable(path)
    with pytest.raises(StoreError):
        take(lock)
    with strangers():
        with pytest.raises(StoreError):
            take(lock)
        path.rmdir()
        take(lock)


def test_a_lock_that_cannot_be_opened_anew_is_in_nobodys_way(path: Path, lock: LockFile) -> None:
    """Others have the same file open, and are to find out for themselves."""
    other = LockFile(path)
    make_unusable(path)
    with pytest.raises(StoreError):
        take(lock)
    fcntl.flock(other._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.close()


def test_the_directory_comes_back_with_the_lock(path: Path, lock: LockFile) -> None:
    """Somebody has emptied all of it."""
    path.unlink()
    path.parent.rmdir()
    take(lock)
    assert path.exists()


def test_closing_twice_closes_nothing_of_others(lock: LockFile) -> None:
    """The number may be somebody else's by then."""
    lock.close()
    with strangers():
        lock.close()


def test_closing_a_store_that_could_not_be_opened_closes_nothing_of_others(tmp_path: Path) -> None:
    """Its locks were let go when it could not be opened."""
    with crew_of_stores(tmp_path, 1) as (one,):
        one.store.close()
        make_unusable(Layout(tmp_path).identity_key)
        with pytest.raises(StoreError):
            one.store.open()
        with strangers():
            one.store.close()
