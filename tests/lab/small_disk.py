"""File systems that a test can fill: a tmpfs of a few MiB, mounted for as long as a block runs."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.programs import LabError


@contextlib.contextmanager
def small_disk(directory: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a file system of that size on a directory, which is made; LabError when that is not allowed here."""
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},mode=0700"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "registry-proxy-test", str(directory)]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise LabError(f"a small disk cannot be mounted, run the tests as root: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path, leave_bytes: int = 0) -> Path:
    """Write a file until only so many bytes are free, and return it."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - leave_bytes))
    return filler
