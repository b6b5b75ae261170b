"""What a registry did not have a moment ago is not asked for again at once (contract D17).

Only a 404, no failure; only in memory, for seconds: a tag that is there now is hidden for no longer. A push through
this proxy ends it, and so does a client that asks with `Cache-Control: no-cache`. What one client may not see is not
told to another one: an answer is for whoever shows the same authorization.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from regproxy.oci.names import Registry
from regproxy.origin.errors import Answer
from regproxy.origin.tokens import Bounded

LARGEST_BODY_BYTES = 8 * 1024
"""Error bodies are a few hundred bytes of JSON. A larger one is not kept, and asked for each time."""


@dataclass(frozen=True, slots=True)
class Absent:
    """What was asked for, by whom."""

    registry: Registry
    name: str
    reference: str
    """A tag or a digest."""
    accepted: tuple[str, ...]
    """Media types: there are registries that say 404 when they have the tag in another type only. Empty for a blob."""
    fingerprint: str
    """Of the client's own authorization; empty for what the proxy asks on its own account."""


@dataclass(frozen=True, slots=True)
class _Known:
    answer: Answer
    method: str
    until_s: float
    written_before: int
    """The writes of all processes when it was asked for."""


class NotFound:
    """Belongs to one event loop. `lifetime_s` of 0 remembers nothing."""

    def __init__(self, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._known: Bounded[Absent, _Known] = Bounded()
        self._writes = 0
        self.written_elsewhere: Callable[[], int] = lambda: 0
        """Another number after each write that another process of this proxy has let through."""
        self.on_written: Callable[[], None] = lambda: None
        self.on_kept: Callable[[Absent, Answer, str, float], None] = lambda *_: None
        """Called with what is kept: what was asked for, answer, method, end by the monotonic clock."""

    @property
    def writes(self) -> int:
        """Another number after every write; an answer to a question from before the last one is not kept."""
        return self._writes + self.written_elsewhere()

    def find(self, absent: Absent, *, head: bool) -> Answer | None:
        """Return the registry's answer of a moment ago. A GET is not answered with what a HEAD brought: no body."""
        known = self._known.get(absent)
        if known is None or self._clock() >= known.until_s or (known.method == "HEAD" and not head):
            return None
        if known.written_before != self.written_elsewhere():
            return None
        return known.answer

    def keep(self, absent: Absent, answer: Answer, *, method: str, writes: int) -> None:
        """Remember an answer if it is a 404; `writes` is what `NotFound.writes` was when the question was asked."""
        if answer.status != 404 or len(answer.body) > LARGEST_BODY_BYTES:
            return
        if self._lifetime_s and writes == self.writes:
            until_s = self._clock() + self._lifetime_s
            self.hear(absent, answer, method, until_s, self.written_elsewhere())
            self.on_kept(absent, answer, method, until_s)

    def hear(self, absent: Absent, answer: Answer, method: str, until_s: float, written_before: int) -> None:
        """Remember a 404 that another process of this proxy got, with what `written_elsewhere` was to it."""
        self._known[absent] = _Known(answer, method, until_s, written_before)

    def forget(self, absent: Absent) -> None:
        """Forget one answer."""
        self._known.pop(absent, None)

    def written(self, registry: Registry, name: str) -> None:
        """Forget what is said of a repository that was written to."""
        self._writes += 1
        self.on_written()
        for absent in [each for each in self._known if (each.registry, each.name) == (registry, name)]:
            del self._known[absent]
