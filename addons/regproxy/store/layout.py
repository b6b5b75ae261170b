"""Where everything lies below the store's directory, and the check that it can be used at all.

Paths are derived from digests and never read from the index: a digest's grammar (oci.digest) leaves nothing that could
name a file elsewhere. Directories that are made here are 0700, files 0600; an existing directory keeps its mode.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regproxy.oci.digest import HEX_LENGTHS, Digest
from regproxy.store.errors import StoreError, translated

type FileId = tuple[int, int]
"""Inode and Unix time of the last write in nanoseconds: the number of an inode is soon given to another file."""

CONTENT_NAME = re.compile(r"content/(sha256|sha512)/([0-9a-f]{2})/(\2[0-9a-f]+)")
"""A content file's name relative to the directory; nothing else is ever deleted on the index's word."""

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
BLOCK_BYTES = 4096


def on_disk_bytes(size_bytes: int) -> int:
    """Return what a file of this size takes: whole blocks, as file systems give them."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one directory."""

    directory: Path
    """Absolute path of the store."""

    def content_name(self, digest: Digest) -> str:
        """Return the content file's name relative to the directory."""
        return f"content/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def content(self, digest: Digest) -> Path:
        """Return the file of finished content."""
        return self.directory / self.content_name(digest)

    def content_file(self, digest: Digest) -> FileId | None:
        """Return which file the content is now, None for none. StoreError."""
        path = self.content(digest)
        with translated("look at", path, "check the disk"):
            try:
                return file_id(path.lstat())
            except FileNotFoundError:
                return None

    def partial(self, digest: Digest) -> Path:
        """Return the file that is being filled."""
        return self.directory / "partial" / f"{digest.algorithm}-{digest.hex}"

    def sidecar(self, digest: Digest) -> Path:
        """Return the JSON file that says which bytes of the partial file are there."""
        return self.directory / "partial" / f"{digest.algorithm}-{digest.hex}.json"

    def scratch(self, digest: Digest) -> Path:
        """Return the file in which content that is already in memory is written before it is adopted."""
        return self.directory / "partial" / f"{digest.algorithm}-{digest.hex}.{os.getpid()}.tmp"

    @property
    def database(self) -> Path:
        """SQLite's file."""
        return self.directory / "cache.db"

    @property
    def heartbeat(self) -> Path:
        """There while the store is open; its modification time says when the store was last known alive."""
        return self.directory / "running"

    @property
    def stopped(self) -> Path:
        """There after a clean close: its modification time says when, its text in which run of the machine."""
        return self.directory / "stopped"

    @property
    def identity_key(self) -> Path:
        """The key with which clients' logins are hashed."""
        return self.directory / "identity.key"

    def prepare(self) -> None:
        """Make the directories and prove that they can be written; StoreError names the directory and the user."""
        try:
            for directory in (self.directory, self.directory / "content", self.directory / "partial"):
                directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
                probe = directory / f".probe-{os.getpid()}"
                os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, FILE_MODE))
                probe.unlink()
            # SQLite would create it readable for everyone; its -wal and -shm files take over this mode.
            os.close(os.open(self.database, os.O_CREAT | os.O_WRONLY, FILE_MODE))
        except OSError as error:
            raise StoreError(
                f"the cache directory {self.directory} cannot be created or written by uid {os.geteuid()}"
                f" ({error.strerror}): mount a writable volume there or change its owner"
            ) from error

    def is_complete(self) -> bool:
        """Whether everything that `prepare` makes is there."""
        return all(path.exists() for path in (self.directory / "content", self.directory / "partial", self.database))

    def stored(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Yield what lies in the content directories, with its size and times; strange names are passed over."""
        for algorithm, length in HEX_LENGTHS.items():
            for entry in _entries(self.directory / "content" / algorithm):
                for content in _entries(entry):
                    with contextlib.suppress(ValueError, FileNotFoundError):
                        if len(content.name) == length:
                            yield Digest(algorithm, content.name), content.stat()


def file_id(status: os.stat_result) -> FileId:
    """Return which file it is that has this status."""
    return status.st_ino, status.st_mtime_ns


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
