"""An open content file."""

import os
import warnings
from types import TracebackType
from typing import Self


class StoredContent:
    """An open content file; close it, or use it in a `with` statement. Eviction does not take it away."""

    __slots__ = ("_fd", "size_bytes")

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self.size_bytes = size_bytes

    def fileno(self) -> int:
        """Return the read-only descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._fd >= 0:
            warnings.warn(f"stored content was not closed (descriptor {self._fd})", ResourceWarning, stacklevel=2)
            self.close()
