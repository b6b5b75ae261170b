"""The file of the day counters in the cache directory: `statistics.json`, a few kilobytes, written as a whole.

It is no part of the index: a cache that is thrown away to be rebuilt need not lose it, and losing it harms no pull.
"""

import os
from pathlib import Path

from regproxy.policy.day_counts import History
from regproxy.store.errors import StoreError
from regproxy.store.layout import FILE_MODE

NAME = "statistics.json"
MOST_BYTES = 64 * 1024


def read_history(directory: Path) -> History | None:
    """Return what was counted before; None when there is no file. StoreError when it cannot be read. Blocks."""
    path = directory / NAME
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES} bytes")  # noqa: TRY301
        return History.from_json(text.decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}): remove it, or the counters begin at zero") from error


def write_history(directory: Path, history_text: str) -> None:
    """Replace the file; a reader sees the old text or the new one. StoreError. Blocks."""
    path = directory / NAME
    scratch = directory / f".{NAME}.{os.getpid()}"
    try:
        descriptor = os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(history_text)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written ({error.strerror}): check the disk") from error
