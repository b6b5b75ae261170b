"""What a store needs of the other workers that use its directory, and the locks that keep them apart.

Implemented by the engine's `Crew`; the locks are the kernel's (flock), so they go with a process that dies.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from regproxy.oci.digest import Digest
from regproxy.store.crew.stamps import Stamps
from regproxy.store.errors import translated
from regproxy.store.layout import DIRECTORY_MODE, FILE_MODE

_CLOSED = -1
"""Instead of a file descriptor."""


class Claim(Protocol):
    """A claim to what is done by one worker at a time."""

    is_granted: bool
    """Whether it is this worker's turn; also when the one before has died."""
    is_over: bool
    """Whether the one before is done."""
    said: Any
    """What the one before said last."""
    is_followed: bool
    """Whether others wait."""
    on_followed: Callable[[], None]

    async def next_word(self) -> None:
        """Wait for a change of the above."""

    def say(self, said: object) -> None:
        """Tell those who wait."""

    def release(self, said: object = None) -> None:
        """Let go, with a last word."""


class ErrorWords(Protocol):
    """How an ingest's error reaches the readers of other workers."""

    def told(self, error: Exception) -> dict[str, Any]:
        """Return an error as JSON has it."""

    def heard(self, told: dict[str, Any]) -> Exception | None:
        """Return the error again; None when the next worker is to try for itself."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """The other workers."""

    claim: Callable[[str], Claim]
    stamps: Stamps
    words: ErrorWords


class LockFile:
    """A file that processes lock. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._depth = 0
        self._fd = self._open()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process holds it, and hold it; who holds it may do so again."""
        if not self._depth:
            self._lock()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _lock(self) -> None:
        """Lock the file that has the name now: somebody may have emptied the directory."""
        while True:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._fd), self.path.stat()):
                    return
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # others may still wait for it, and this may fail
            opened, stale = self._open(), self._fd
            self._fd = opened
            os.close(stale)

    def _open(self) -> int:
        with translated("open the lock", self.path, "check the owner of the cache directory"):
            self.path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def is_last(self) -> bool:
        """Whether no other process has joined; then it is held."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def join(self) -> None:
        """Be one of those who use what it stands for."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be none of them any more."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close it, and let go; once is enough."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)


def claim_name(digest: Digest) -> str:
    """Return the key by which workers claim a download."""
    return f"blob {digest}"
