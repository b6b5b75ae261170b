"""Hashes stored content again, a step at a time, to see whether it is still what its name says."""

import contextlib
import errno
import os
from pathlib import Path

from regproxy.oci.digest import RunningHash
from regproxy.store.errors import translated

_BROKEN = {errno.EIO, errno.EACCES, errno.EPERM, errno.ELOOP}
"""The file itself cannot be read, as against a process without descriptors or memory."""


class Unreadable(Exception):  # noqa: N818 - the state of a file
    """The disk or its permissions give this file to nobody: as good as broken."""


def hash_some(path: Path, running: RunningHash, offset: int, piece_bytes: int, pieces: int) -> int:
    """Hash the next pieces of a file; returns their length, 0 at the end or when the file is gone. Blocks.

    Raises Unreadable, or StoreError when reading fails for a reason that is not the file's.
    """
    start = offset
    try:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                for _ in range(pieces):
                    piece = os.pread(fd, piece_bytes, offset)
                    running.update(piece)
                    offset += len(piece)
            finally:
                os.close(fd)
    except OSError as error:
        if error.errno in _BROKEN:
            raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
        with translated("read", path, "check the disk"):
            raise
    return offset - start
