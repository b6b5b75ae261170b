"""Verify: hash all that is stored anew; what is wrong is removed, and the next pull brings it again."""

import time
from dataclasses import dataclass, field

from mitmproxy.utils import asyncio_utils

from regproxy.oci.digest import Digest
from regproxy.stack.admin.queries import COUNT, TEXT, Json, Schema, array, nullable, record
from regproxy.store.content import Store
from regproxy.store.errors import StoreError

VERIFICATION: Schema = record(
    state={"type": "string", "enum": ["never", "running", "done", "failed"]},
    checked=COUNT,
    total=COUNT,
    checked_bytes=COUNT,
    total_bytes=COUNT,
    duration_s={"type": "number"},
    removed=array(TEXT),
    error=nullable(TEXT),
)


@dataclass(slots=True)
class _Run:
    state: str = "never"
    began_s: float = 0.0
    ended_s: float = 0.0
    checked: int = 0
    total: int = 0
    checked_bytes: int = 0
    total_bytes: int = 0
    removed: list[Digest] = field(default_factory=list)
    error: str | None = None


class Verification:
    """One run at a time, one file after the other, so that pulls are hardly slower meanwhile."""

    def __init__(self) -> None:
        self._last = _Run()

    def start(self, store: Store) -> None:
        """Begin, unless it is under way."""
        if self._last.state != "running":
            self._last = _Run("running", time.monotonic())
            asyncio_utils.create_task(_run(self._last, store), name="verify the cache", keep_ref=True)

    def described(self) -> Json:
        """Say how far it is, or how the last run ended."""
        run = self._last
        ended_s = time.monotonic() if run.state == "running" else run.ended_s
        return {
            "state": run.state,
            "checked": run.checked,
            "total": run.total,
            "checked_bytes": run.checked_bytes,
            "total_bytes": run.total_bytes,
            "duration_s": round(max(0.0, ended_s - run.began_s), 3),
            "removed": [str(digest) for digest in run.removed],
            "error": run.error,
        }


async def _run(run: _Run, store: Store) -> None:
    try:
        await _check_all(run, store)
    except (StoreError, OSError) as error:
        run.state, run.error = "failed", str(error)
    else:
        run.state = "done"
    finally:
        run.ended_s = time.monotonic()


async def _check_all(run: _Run, store: Store) -> None:
    contents = await store.inventory.contents()
    run.total = len(contents)
    run.total_bytes = sum(row.size_bytes for row in contents.values())
    for row in contents.values():
        if not await store.inventory.verify(row.digest):
            run.removed.append(row.digest)
        run.checked += 1
        run.checked_bytes += row.size_bytes
