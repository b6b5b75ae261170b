"""The file in which it is written down which client has fetched which CA."""

import os
from pathlib import Path

from regproxy.store.layout import FILE_MODE


def read(path: Path) -> str:
    """Return what was written, nothing if it cannot be read: it is a help for people."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all. Raises OSError."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, FILE_MODE), "w", encoding="utf-8") as file:
        file.write(text)
    scratch.replace(path)
