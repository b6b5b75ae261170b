"""Tells whether the clock was set: the wall clock against one that only goes forward.

A clock that jumps by months would make all content look unused for months, and it would be removed at once. So the
store moves its times along with the clock and keeps all ages. A machine that slept looks the same, and its content did
not age.
"""

from collections.abc import Callable

LEAST_JUMP_S = 60.0
"""Less is the daily correction of a clock, or a process that had to wait."""


class ClockJumps:
    """Compares both clocks from look to look."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall, self._steady = wall, steady
        self._wall_s, self._steady_s = wall(), steady()

    def since_last_look_s(self) -> float:
        """Return by how many seconds the clock was set since the last call: negative for back, 0 for not at all."""
        wall_s, steady_s = self._wall(), self._steady()
        jump_s = (wall_s - self._wall_s) - (steady_s - self._steady_s)
        self._wall_s, self._steady_s = wall_s, steady_s
        return jump_s if abs(jump_s) >= LEAST_JUMP_S else 0.0
