"""Access times on their way to the index: a hit is noted in memory and written later, with many others at once."""

import threading
from collections.abc import Mapping


class Accesses:
    """The latest access of each key since the last `take`; noted by any thread, taken by the index thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, float] = {}

    def note(self, key: str, now_s: float) -> None:
        """Remember an access at this Unix time."""
        with self._lock:
            self._latest[key] = now_s

    def shift(self, by_s: float) -> None:
        """Move all times by so many seconds: the clock was set."""
        with self._lock:
            self._latest = {key: at_s + by_s for key, at_s in self._latest.items()}

    def take(self) -> Mapping[str, float]:
        """Return what was noted, and forget it."""
        with self._lock:
            taken, self._latest = self._latest, {}
        return taken
