"""`python -m bench`: run the comparison and write the results. `make bench` installs what it needs before."""

import argparse
import contextlib
import dataclasses
import datetime as dt
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from bench import ROOT, machine, measures
from bench.clients import ClientError
from bench.peers import OURS, PEERS, Peer
from bench.report import Report
from bench.rows import ROWS, Row
from bench.session import run
from bench.sizes import FULL, QUICK
from bench.stage import Stage
from lab.programs import LabError

logger = logging.getLogger("bench")


def main() -> int:
    """Return the exit code: 1 when the run could not be made or ours failed at a row."""
    chosen = _parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    signal.signal(signal.SIGTERM, _interrupt)
    sizes = QUICK if chosen.quick else FULL
    if chosen.repeats is not None:
        sizes = dataclasses.replace(sizes, repeats=chosen.repeats)
    peers, rows = _select(PEERS, chosen.peers), _select(ROWS, chosen.rows)
    is_full = len(peers) == len(PEERS) and len(rows) == len(ROWS) and sizes.repeats >= FULL.repeats and not chosen.quick
    before = dict(machine.describe())
    try:
        with _work_directory(chosen.work) as directory, Stage(directory, sizes) as stage:
            report = _report(stage, peers, rows, is_full=is_full, before=before)
    except KeyboardInterrupt:
        logger.warning("interrupted; nothing is written")
        return 130
    except (LabError, ClientError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400 - one line says it
        return 1
    report.write(_results_directory(chosen.output, is_full=is_full))
    sys.stdout.write(f"\n{report.table()}\n\nIn brackets: our median divided by theirs.\n\n{report.bars()}\n")
    return 0 if all(report.results.median(row, row.metrics[0], OURS.name) is not None for row in rows) else 1


def _report(
    stage: Stage, peers: Sequence[Peer], rows: Sequence[Row], *, is_full: bool, before: dict[str, str]
) -> Report:
    for peer in peers:
        logger.info("starting %s", peer.name)
        stage.start(peer)
    if {"cold", "followers"} & {row.name for row in rows}:
        before["slow upstream, one connection"] = f"{measures.check_slow_upstream(stage):.1f} MB/s"
    return Report(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        machine=before,
        versions=machine.versions(),
        sizes=stage.sizes,
        is_full=is_full,
        peers=peers,
        rows=rows,
        results=run(stage, peers, rows),
    )


def _select[Named: (Peer, Row)](known: Sequence[Named], names: str | None) -> Sequence[Named]:
    """Return those that a comma-separated list names, in the order of `known`; without a list, all."""
    if names is None:
        return known
    wanted = set(names.split(","))
    unknown = wanted - {one.name for one in known}
    if unknown:
        raise SystemExit(f"bench: unknown: {', '.join(sorted(unknown))}; known: {', '.join(one.name for one in known)}")
    return [one for one in known if one.name in wanted]


@contextlib.contextmanager
def _work_directory(parent: Path | None) -> Iterator[Path]:
    """Yield a new folder that is removed afterwards."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent, ignore_cleanup_errors=True) as name:
        directory = Path(name).resolve()
        directory.chmod(0o711)  # squid started by root becomes another user, who must reach its folder
        yield directory


def _results_directory(output: Path | None, *, is_full: bool) -> Path:
    """Only a full run replaces the published results."""
    return output or (ROOT / "bench" if is_full else ROOT / "bench/work")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Compare the proxy with its peers on this machine.")
    parser.add_argument("--quick", action="store_true", help="small bodies and two repeats, for development")
    parser.add_argument("--rows", metavar="NAME,...", help=f"of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--peers", metavar="NAME,...", help=f"of {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument("--repeats", type=int, metavar="N", help=f"default: {FULL.repeats}, quick: {QUICK.repeats}")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made; it takes about 12 GiB")
    parser.add_argument(
        "--output", type=Path, help="folder for the results; default: bench/, or bench/work/ if partial"
    )
    chosen = parser.parse_args()
    if chosen.peers is not None and OURS.name not in chosen.peers.split(","):
        parser.error(f"{OURS.name} must be among the peers: all ratios are to it")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
