"""An ingest that may be another worker's: its readers read the same growing file, and go on when that worker dies.

While another worker fills the file, `follow` takes over what that one says of it; the file is open here, so it stays
though it is renamed or removed, and what is said of another file is not taken for it. `told` is what this worker says
of one that it fills itself.
"""

import contextlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regproxy.oci.digest import Digest
from regproxy.store.errors import IngestFailed, StoreError, translated
from regproxy.store.growing import HOLD_BACK_BYTES, Home
from regproxy.store.ingest import Ingest, IngestState
from regproxy.store.intervals import Intervals
from regproxy.store.layout import Layout
from regproxy.store.partial import PartialFile, Progress


class CrewIngest(Ingest):
    """The content of one digest while it arrives, here or at another worker."""

    def __init__(
        self, digest: Digest, home: Home, on_change: Callable[["CrewIngest"], None], *, is_stored: bool
    ) -> None:
        super().__init__(digest, home)
        self._layout = home.layout
        self._on_change = on_change
        self.was_stored = is_stored
        """Whether the content was there when this began."""
        self._followed: _FollowedFile | None = None
        self._followed_bytes = 0

    @property
    def contiguous_bytes(self) -> int:
        """Bytes from offset 0 on that have arrived without a hole."""
        return super().contiguous_bytes if self._followed is None else self._followed_bytes

    @property
    def arrived_bytes(self) -> int:
        """All bytes that have arrived, as far as this worker was told."""
        return super().arrived_bytes if self._followed is None else self._followed_bytes

    # While another worker fills the file.

    @property
    def is_following(self) -> bool:
        """Whether what is read here is filled by another worker."""
        return self._followed is not None

    def follow(self, told: dict[str, Any]) -> None:
        """Take over what the other worker has told. Raises StoreError when the file cannot be opened."""
        size_bytes, arrived_bytes = told["size_bytes"], told["arrived_bytes"]
        if self.ended:
            return
        if self._exposed and size_bytes != self.size_bytes:
            self.fail(IngestFailed(f"{self.digest}: the upstream said {self.size_bytes} bytes, now {size_bytes}"))
            return
        if self._followed is None or self._followed.inode != told["inode"]:
            if self._exposed:
                self.fail(IngestFailed(f"{self.digest}: the file that was read is gone, another one is filled"))
                return
            self._followed = _file_of(self._layout, self.digest, told["inode"])
            if self._followed is None:
                return  # another one has taken its place meanwhile: the next word is of that
        self.size_bytes, self.etag, self._followed_bytes = size_bytes, told["etag"], arrived_bytes
        self.state = IngestState.VERIFIED if told["verified"] else IngestState.FILLING
        self._wake()

    def found(self) -> None:
        """Take content that another worker has stored meanwhile. Raises StoreError when it has gone again."""
        if self.ended:
            return
        with translated("open what another worker has stored,", self._layout.content(self.digest), "try again"):
            stored = _FollowedFile(self._layout.content(self.digest))
        size_bytes = os.fstat(stored.fd).st_size
        if self._exposed and (self._followed is None or self._followed.inode != stored.inode):
            self.fail(IngestFailed(f"{self.digest}: the file that was read is gone, another one is stored"))
            return
        self._followed, self.size_bytes, self._followed_bytes = stored, size_bytes, size_bytes
        self.state = IngestState.VERIFIED
        self._wake()

    async def take_over(self, told: dict[str, Any] | None) -> None:
        """Go on with what a worker that has died left of it."""
        if told is not None and told["size_bytes"] is not None:
            keep_progress(self._layout, self.digest, told)
        await self.resume()
        followed, self._followed = self._followed, None
        if followed is not None and self._exposed and not self._is_same(followed):
            self.fail(IngestFailed(f"{self.digest}: the file that was read is gone with the worker that filled it"))

    def _is_same(self, followed: "_FollowedFile") -> bool:
        try:
            return os.path.samestat(os.fstat(followed.fd), os.fstat(super()._read_fd()))
        except StoreError:
            return False

    # While this worker fills it.

    def told(self) -> dict[str, Any] | None:
        """Return what other workers are to know of it; None while there is nothing to know.

        After that its size is promised: their readers may have it.
        """
        if self.state not in {IngestState.FILLING, IngestState.VERIFIED}:
            return None
        # What is held back as a whole is promised to nobody before it is verified.
        self._exposed |= self.state is IngestState.VERIFIED or (self.size_bytes or 0) > HOLD_BACK_BYTES
        return {
            "inode": os.fstat(self._read_fd()).st_ino,
            "size_bytes": self.size_bytes,
            "arrived_bytes": self.contiguous_bytes,
            "etag": self.etag,
            "verified": self.state is IngestState.VERIFIED,
        }

    def _wake(self) -> None:
        super()._wake()
        if self._followed is None:
            self._on_change(self)

    def _read_fd(self) -> int:
        return super()._read_fd() if self._followed is None else self._followed.fd


class _FollowedFile:
    """A file that another worker fills, or has just stored. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        weakref.finalize(self, os.close, self.fd)
        self.inode = os.fstat(self.fd).st_ino
        """Which file it is: nobody gets the number anew while this is open."""


def _file_of(layout: Layout, digest: Digest, inode: int) -> _FollowedFile | None:
    """Open the file that another worker fills, which it may have renamed since; None if it is gone."""
    with translated("open what another worker fills,", layout.partial(digest), "try again"):
        for path in (layout.partial(digest), layout.content(digest)):
            with contextlib.suppress(FileNotFoundError):
                found = _FollowedFile(path)
                if found.inode == inode:
                    return found
    return None


def keep_progress(layout: Layout, digest: Digest, told: dict[str, Any]) -> None:
    """Write the sidecar of a worker that has died: it told more than it had written there. Blocks, for a moment."""
    try:
        partial = PartialFile(layout, digest, create=False)
    except StoreError:
        return
    try:
        arrived = Intervals().add(0, told["arrived_bytes"])
        try:
            before = Progress.from_json(layout.sidecar(digest).read_text())
        except (OSError, ValueError):
            before = None
        if before is not None and before.size_bytes == told["size_bytes"] and before.etag == told["etag"]:
            for start, end in before.intervals.spans:
                arrived = arrived.add(start, end)
        partial.save(Progress(told["size_bytes"], told["etag"], arrived))
    except StoreError:
        pass  # what the sidecar says is not wrong, only less
    finally:
        partial.close()
