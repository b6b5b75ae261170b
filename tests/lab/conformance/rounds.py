"""All chapters, asked straight and by each way, cold and warm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.conformance import reading, writing
from lab.conformance.visit import REGISTRY, Outcome, Visit
from lab.conformance.ways import Way
from lab.lab import Lab

TURNS = ("cold", "warm")


@dataclass(frozen=True, slots=True)
class Chapter:
    """Cases that belong together."""

    title: str
    run: Callable[[Visit], None]
    host: str = REGISTRY
    writes: bool = False


CHAPTERS: Mapping[str, Chapter] = {
    "pull": Chapter("Pull", reading.pull),
    "ranges": Chapter("Ranges and validators of blobs", reading.ranges),
    "discovery": Chapter("Content discovery", reading.discovery),
    "referrers": Chapter(
        "Referrers, of a scripted registry that has the API", reading.referrers, reading.REFERRERS_HOST
    ),
    "logins": Chapter("A registry with logins", reading.logins, "basic.lab.test"),
    "redirects": Chapter("A registry that redirects to its storage", reading.redirects, "redirect.lab.test"),
    "push": Chapter("Push", writing.push, writes=True),
    "management": Chapter("Content management", writing.management, writes=True),
    "single": Chapter("Single writes", writing.single_writes, writes=True),
}
_ALLOWED_ONLY = frozenset({"push", "management"})
"""Their cases need the answers of writes."""


class Rounds:
    """Asks everything by one way after the other; what is to be read is put into the registries once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._placed: set[str] = set()

    def ask_all(self, way: Way, *, may_write: bool, turns: int = len(TURNS)) -> dict[tuple[str, int], list[Outcome]]:
        """Return the outcomes by chapter and turn: first everything cold, then everything again."""
        outcomes: dict[tuple[str, int], list[Outcome]] = {}
        for turn in range(turns):
            for name, chapter in CHAPTERS.items():
                if may_write or name not in _ALLOWED_ONLY:
                    visit = Visit(self._lab, way, turn, name, chapter.host, chapter.writes, self._placed)
                    chapter.run(visit)
                    outcomes[name, turn] = visit.outcomes
        return outcomes
