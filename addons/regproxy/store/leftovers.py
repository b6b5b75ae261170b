"""What an earlier run left in `partial/`: files worth resuming, and files to be removed.

Files that another process is writing are locked and left alone. Raises OSError.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.partial import Progress, remove_unlocked


@dataclass(frozen=True, slots=True)
class Leftover:
    """A partial file that can be resumed."""

    digest: Digest
    on_disk_bytes: int
    """What it takes: allocating gave it its full size, also where nothing is written yet."""
    modified_at_s: float
    """Unix time of the last write."""


def collect_leftovers(layout: Layout, oldest_s: float) -> list[Leftover]:
    """Return what can be resumed, oldest first, and remove the rest: no sidecar that fits, or older than `oldest_s`."""
    worth_it: list[Leftover] = []
    names = sorted((layout.directory / "partial").iterdir())
    for path in names:
        leftover = _leftover(layout, path)
        if leftover is not None and leftover.modified_at_s >= oldest_s:
            worth_it.append(leftover)
        elif leftover is not None or path.suffix != ".json":
            remove_unlocked(path)
    for path in names:
        if path.suffix == ".json" and not path.with_suffix("").exists():
            path.unlink(missing_ok=True)
    return sorted(worth_it, key=lambda leftover: leftover.modified_at_s)


def remove_leftover(layout: Layout, digest: Digest) -> bool:
    """Remove a partial file that nobody fills; returns whether it is gone."""
    if not remove_unlocked(layout.partial(digest)):
        return False
    layout.sidecar(digest).unlink(missing_ok=True)
    return True


def _leftover(layout: Layout, path: Path) -> Leftover | None:
    with contextlib.suppress(ValueError, FileNotFoundError):
        digest = Digest.parse(path.name.replace("-", ":", 1))
        status = path.stat()
        if Progress.from_json(layout.sidecar(digest).read_text()).intervals.end() <= status.st_size:
            return Leftover(digest, on_disk_bytes(status.st_size), status.st_mtime)
    return None
