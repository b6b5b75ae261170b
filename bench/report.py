"""The results as a table for the terminal, as results.md and as results.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.peers import OURS, Peer
from bench.rows import Bar, Metric, Row
from bench.session import Results
from bench.sizes import MIB, UPSTREAM_RATE_BYTES_PER_S, Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run, ready to be written."""

    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    sizes: Sizes
    is_full: bool
    """Whether all rows ran against all peers with the full sizes."""
    peers: Sequence[Peer]
    rows: Sequence[Row]
    results: Results

    def write(self, directory: Path) -> None:
        """Write results.md and results.json."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "results.md").write_text(self.markdown())
        (directory / "results.json").write_text(json.dumps(self.document(), indent=1) + "\n")

    def document(self) -> Mapping[str, object]:
        """Return everything, each single figure too."""
        return {
            "date": self.date,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "sizes": asdict(self.sizes),
            "is_full": self.is_full,
            "seconds": round(self.results.seconds),
            "figures": self.results.figures,
            "bars": [
                {"row": row.name, "metric": metric.name, "bar": bar.text, "figure": figure, "verdict": verdict}
                for row, metric, bar, figure, verdict in self.verdicts()
            ],
            "remarks": self.results.remarks,
        }

    def table(self) -> str:
        """Return the medians with the ratio of ours to each."""
        lines = [["", "unit", *(peer.name for peer in self.peers)]]
        for row in self.rows:
            for metric in row.metrics:
                cells = [self._cell(row, metric, peer) for peer in self.peers]
                lines.append([metric.title, metric.unit, *cells])
        return align(lines)

    def bars(self) -> str:
        """Return the bars and whether they are reached."""
        lines = [["", "bar", "figure", "reached"]]
        for _, metric, bar, figure, verdict in self.verdicts():
            lines.append([metric.title, bar.text, "" if figure is None else f"{figure:.3g}", verdict])
        return align(lines)

    def verdicts(self) -> Iterator[tuple[Row, Metric, Bar, float | None, str]]:
        """Yield each bar with our figure for it and `yes`, `no`, `aim` (more than asked) or `not measured`."""
        for row in self.rows:
            for metric in row.metrics:
                for bar in metric.bars:
                    figure = self._figure_for(row, metric, bar)
                    yield row, metric, bar, figure, _verdict(bar, figure)

    def markdown(self) -> str:
        """Return results.md."""
        sizes, results = self.sizes, self.results
        partly = "" if self.is_full else "\nThis is no full run: its sizes, rows, peers or repeats are fewer.\n"
        remarks = "\n".join(f"- {' '.join(text.split())}" for text in results.remarks) or "None."
        return f"""# Benchmark

Written by `make bench` on {self.date}, {results.seconds / 60:.0f} minutes. Do not edit.
{partly}
{self._summary()}

What costs what, and why a bar is missed: [docs/performance.md](../docs/performance.md).

## Medians

Median of {sizes.repeats} repeats (memory: one series of readings), peers in turn within each repeat.
In brackets: our median divided by theirs. MB is 10^6 bytes.
Large blob: {sizes.large_blob_bytes // MIB} MiB; cold blob: {sizes.cold_blob_bytes // MIB} MiB.

{self.table()}

## Bars

{self.bars()}

`aim` is reached and more. "No growth" leaves 2 MiB to chance; "threads bounded" means far fewer
than one for each slow client.

## Spread

Least and greatest single figure of ours and nginx's.

{self._spreads()}

## How the peers differ from what users run

{self._differences()}
- All: clients, proxies and upstream share the cores and the loopback; a proxy on a machine of its own has more to
  give. Clients speak HTTP/1.1. Everything that is read comes from the page cache, none from a disk.
- The slow upstream is nginx's `limit_rate`, {UPSTREAM_RATE_BYTES_PER_S // 1_000_000} MB/s for each request. It lets the
  first second's worth pass at once, which is a gain for whoever sends several requests.
- Cold rows run against a fresh instance with an empty cache, started just before; memory is that of the instance which
  served all other rows, after one more cold blob and {sizes.warm_pulls} pulls, read at 40 points of
  {sizes.pulls} more; growth is the slope of a line through these readings, for 1,000 pulls.
- Requests per second are those of a whole peer: ours is one process, nginx has a worker for each core.
- CPU is user and system time of the proxy's processes from /proc; memory is the sum of their RSS, so pages that
  processes share count several times (nginx).

## Remarks of this run

{remarks}

## Machine

{pairs(self.machine)}

{pairs(self.versions)}
"""

    def _summary(self) -> str:
        """Say how many bars are reached, and name the others."""
        verdicts = list(self.verdicts())
        missed = [
            f"- {metric.title}: {bar.text}; {'not measured' if figure is None else f'it is {figure:.3g}'}"
            for _, metric, bar, figure, verdict in verdicts
            if verdict in {"no", "not measured"}
        ]
        reached = f"{len(verdicts) - len(missed)} of {len(verdicts)} bars are reached."
        return "\n".join([reached + (" Not reached:\n" if missed else ""), *missed])

    def _cell(self, row: Row, metric: Metric, peer: Peer) -> str:
        figure = self.results.median(row, metric, peer.name)
        if figure is None:
            return "-"
        ours = self.results.median(row, metric, OURS.name)
        if peer is OURS or not figure or ours is None or metric.name == "growth":
            return number(figure)
        return f"{number(figure)} ({number(ours / figure)})"

    def _figure_for(self, row: Row, metric: Metric, bar: Bar) -> float | None:
        ours = self.results.median(row, metric, OURS.name)
        if bar.against is None or ours is None:
            return ours
        theirs = self.results.median(row, metric, bar.against)
        return ours / theirs if theirs else None

    def _spreads(self) -> str:
        compared = [peer for peer in self.peers if peer.name in {OURS.name, "nginx"}]
        lines = [["", "unit", *(peer.name for peer in compared)]]
        for row in self.rows:
            for metric in row.metrics:
                spreads = (self.results.spread(row, metric, peer.name) for peer in compared)
                cells = ["-" if s is None else f"{number(s[0])} to {number(s[1])}" for s in spreads]
                lines.append([metric.title, metric.unit, *cells])
        return align(lines)

    def _differences(self) -> str:
        return "\n".join(f"- {peer.name}: {peer.difference}" for peer in self.peers if peer.difference)


def _verdict(bar: Bar, figure: float | None) -> str:
    if figure is None:
        return "not measured"
    if not bar.is_reached(figure):
        return "no"
    return "aim" if bar.aim is not None and bar.is_reached(figure, bar.aim) else "yes"


def number(figure: float) -> str:
    """Return three digits that mean something."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"


def align(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns also line up in a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    )


def pairs(table: Mapping[str, str]) -> str:
    """Return a Markdown list of names and texts."""
    return "\n".join(f"- {name}: {text}" for name, text in table.items())
