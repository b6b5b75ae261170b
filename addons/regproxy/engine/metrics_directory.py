"""Where the workers count together: prometheus-client keeps a file for each process there ("Multiprocess Mode").

In memory (/dev/shm) where there is such a place: the files are mapped, and no part of the cache. The counts of a worker
that has ended stay, what it said of the moment goes.
"""

import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it


def make_directory(name: str, places: tuple[Path, ...] = (_IN_MEMORY, Path(tempfile.gettempdir()))) -> Path | None:
    """Return an empty folder for the files; None if there is no place for it.

    A folder of that name that an earlier run has left is used again, if it is this user's own.
    """
    for place in places:
        directory = place / f"{name}-{os.geteuid()}"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            status = directory.lstat()
            if directory.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                continue
            for path in directory.iterdir():
                path.unlink()
        except OSError:
            continue
        return directory
    return None


def forget_moment(directory: Path, pid: int) -> None:
    """Remove what a process that has ended said of the moment, as `prometheus_client.multiprocess` has it."""
    for path in directory.glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def remove_directory(directory: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(directory, ignore_errors=True)
