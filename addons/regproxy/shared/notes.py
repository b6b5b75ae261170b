"""What the bucket has to hear and has not taken yet: a small file for each record, in `refusals/` beside the content.

A refusal, or a content that is no more, is noted before the client hears of it and until the bucket has it, so that it
outlives the process that has learnt it. All workers of a proxy look here before they believe the bucket.
"""

import contextlib
import logging
import os
from pathlib import Path

_logger = logging.getLogger(__name__)

MOST = 20_000
_HALF = ".new"


class Notes:
    """Records by their names in the bucket. Blocks for a system call or two; an older note gives way to a newer one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def keep(self, path: str, text: str) -> None:
        """Note a record until `remove`. What the disk does not take is known to this process only."""
        file = self._file(path)
        if not file.exists():
            if self._count >= MOST:
                _logger.warning("%s is not noted: the shared store has not taken %d refusals", path, self._count)
                return
            self._count += 1
        half = file.with_name(f"{file.name}.{os.getpid()}{_HALF}")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            half.write_text(text)
            half.replace(file)
        except OSError as error:
            _logger.debug("%s is not noted: %s", path, error)

    def text(self, path: str) -> str | None:
        """Return what is noted of a record; None when nothing is, or it cannot be read."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._file(path).read_text()
        return None

    def remove(self, path: str, text: str | None = None) -> None:
        """Forget a record that the bucket has: this text, if another one has not come in between."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            file = self._file(path)
            if text is None or file.read_text() == text:
                file.unlink(missing_ok=True)

    def paths(self) -> list[str]:
        """Return what is noted. Lists a directory; empty when that cannot be read."""
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 - the names are enough
        except OSError:
            names = []
        self._count = len(names)
        return [name.replace("-", "/") for name in sorted(names) if not name.endswith(_HALF)]

    def _file(self, path: str) -> Path:
        return self._directory / path.replace("/", "-")
