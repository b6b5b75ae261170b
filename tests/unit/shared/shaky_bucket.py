"""A bucket in memory that fails; not in `conftest.py`, of which pytest makes a module of its own."""

from typing import Any

import obstore
from obstore.store import MemoryStore

from regproxy.shared.bucket import Bucket, BucketError


class ShakyBucket(Bucket):
    """A bucket that fails when a test wants it to, and tells what was asked of it."""

    def __init__(self, memory: MemoryStore) -> None:
        super().__init__(memory, memory)
        self.memory = memory
        self.fails = False
        self.fails_to: set[str] = set()
        self.asked: list[str] = []

    def names(self) -> list[str]:
        """Return what is in it."""
        return sorted(entry["path"] for page in obstore.list(self.memory) for entry in page)

    def __getattribute__(self, name: str) -> Any:
        if name in {"get", "put", "download", "upload", "delete", "names_below", "size_of"}:
            self.asked.append(name)
            if self.fails or name in self.fails_to:
                raise BucketError("it answered 503")
        return super().__getattribute__(name)
