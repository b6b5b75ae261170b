"""The text of docs/conformance.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.conformance.differences import Difference, differences
from lab.conformance.reasons import EVERYWHERE, REASONS, reason_for
from lab.conformance.rounds import CHAPTERS, TURNS
from lab.conformance.visit import Outcome

type Outcomes = Mapping[tuple[str, int], Sequence[Outcome]]

_HEAD = """\
# Conformance

The cases of the [OCI distribution specification](https://github.com/opencontainers/distribution-spec) 1.1, asked
straight at a real docker-registry 2.8 and through the proxy. Compared are status, body, and every field that the
specification names, each the first time (cold) and a second time (warm). What is written has repositories of its own
for each way.

`tests/e2e/test_conformance.py` asks everything anew and compares it with this page: a new difference fails the test,
and so does one that is gone. `make golden` writes the page. The specification's own suite is a Go program, which could
not be had where this project is tested; the cases are our own, in `tests/lab/conformance`.

- **Pushes**: through the proxy door (CONNECT, intercepted TLS), with `ALLOW_PUSH=true`.
- **Tags cached**: through the proxy door, with `ENABLE_MANIFEST_CACHE=true`.
- **Mirror**: at the mirror door, with `ENABLE_MANIFEST_CACHE=true`.

`=` is the same, cold and warm; a letter is a difference, told below; `-` was not asked. Note a is not marked. The
column "Registry" has docker-registry's status, and what the specification wants where that differs.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was answered straight, and by each way."""

    direct: Outcomes
    ways: Mapping[str, Outcomes]

    def differences(self) -> Iterator[tuple[int, Difference]]:
        """Yield all differences with their turn."""
        for way, outcomes in self.ways.items():
            for (chapter, turn), got in outcomes.items():
                for theirs, ours in zip(self.direct[chapter, 0], got, strict=True):
                    for difference in differences(way, chapter, theirs, ours):
                        yield turn, difference

    def text(self) -> str:
        """Return the page."""
        marks = self._marks()
        lines = [_HEAD, self._figures(marks), ""]
        for name, chapter in CHAPTERS.items():
            lines += [f"## {chapter.title}", "", "| Case | Endpoint | Registry | Pushes | Tags cached | Mirror |"]
            lines += ["| --- | --- | --- | --- | --- | --- |"]
            lines += [self._row(name, outcome, marks) for outcome in self.direct[name, 0]]
            lines.append("")
        lines += ["## Differences", ""]
        lines += [f"- **{reason.mark}**: {reason.text}" for reason in REASONS]
        return "\n".join(lines) + "\n"

    def _marks(self) -> dict[tuple[str, str, str], dict[str, set[int]]]:
        """Return the turns of each mark by way, chapter and title."""
        marks: dict[tuple[str, str, str], dict[str, set[int]]] = {}
        for turn, difference in self.differences():
            reason = reason_for(difference)
            if reason is EVERYWHERE:
                continue
            mark = "?" if reason is None else reason.mark
            case = marks.setdefault((difference.way, difference.chapter, difference.title), {})
            case.setdefault(mark, set()).add(turn)
        return marks

    def _figures(self, marks: Mapping[tuple[str, str, str], object]) -> str:
        cases = sum(len(outcomes) for outcomes in self.direct.values())
        asked = sum(len(outcomes) for way in self.ways.values() for outcomes in way.values())
        compared = asked // len(TURNS)
        same = compared - len(marks)
        return (
            f"{cases} cases; {asked} answers through the proxy were compared, for {compared} cells of the tables:"
            f" {same} are the same, {len(marks)} differ, each for a reason."
        )

    def _row(self, chapter: str, outcome: Outcome, marks: Mapping[tuple[str, str, str], dict[str, set[int]]]) -> str:
        status = str(outcome.status)
        if outcome.status not in outcome.wanted:
            status += f" (specification: {' or '.join(map(str, outcome.wanted))})"
        cells = [
            _cell(marks.get((way, chapter, outcome.title), {})) if (chapter, 0) in outcomes else "-"
            for way, outcomes in self.ways.items()
        ]
        return f"| {' | '.join([outcome.title.replace('|', '/'), outcome.end, status, *cells])} |"


def _cell(marks: Mapping[str, set[int]]) -> str:
    if not marks:
        return "="
    return ", ".join(
        mark if len(turns) == len(TURNS) else f"{mark} ({TURNS[min(turns)]})" for mark, turns in sorted(marks.items())
    )
