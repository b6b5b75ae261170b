"""`python -m bench.scaling`: measure workers and replicas and write the results. `make bench-scaling` does it all."""

import argparse
import dataclasses
import datetime as dt
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from bench import ROOT, machine
from bench.clients import ClientError
from bench.scaling import replicas, workers
from bench.scaling.figures import Series
from bench.scaling.report import ScalingReport
from bench.sizes import FULL, MIB, Sizes
from bench.stage import Stage
from lab.programs import LabError

logger = logging.getLogger("bench.scaling")

SIZES = dataclasses.replace(FULL, large_blob_bytes=256 * MIB, cold_blob_bytes=256 * MIB, hey_s=3)
QUICK = dataclasses.replace(FULL, repeats=1, large_blob_bytes=128 * MIB, cold_blob_bytes=64 * MIB, hey_s=1)
ROWS = (*(subject.name for subject in workers.SUBJECTS), replicas.SUBJECT)


def main() -> int:
    """Return the exit code: 1 when the run could not be made."""
    chosen = _parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    signal.signal(signal.SIGTERM, _interrupt)
    rows = ROWS if chosen.rows is None else tuple(chosen.rows.split(","))
    if unknown := set(rows) - set(ROWS):
        raise SystemExit(f"bench.scaling: unknown: {', '.join(sorted(unknown))}; known: {', '.join(ROWS)}")
    sizes = QUICK if chosen.quick else SIZES
    if chosen.repeats is not None:
        sizes = dataclasses.replace(sizes, repeats=chosen.repeats)
    is_full = rows == ROWS and not chosen.quick
    before, series, began_s = dict(machine.describe()), Series(), time.monotonic()
    try:
        _measure(rows, sizes, series)
    except KeyboardInterrupt:
        logger.warning("interrupted; nothing is written")
        return 130
    except (LabError, ClientError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400 - one line says it
        return 1
    report = ScalingReport(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        machine=before | {"load after the run": f"{os.getloadavg()[0]:.2f}"},
        repeats=sizes.repeats,
        is_full=is_full,
        seconds=time.monotonic() - began_s,
        series=series,
    )
    report.write(chosen.output or (ROOT / "bench" if is_full else ROOT / "bench/work"))
    sys.stdout.write(f"\n{report.workers()}\n\n{report.replicas()}\n")
    return 0


def _measure(rows: tuple[str, ...], sizes: Sizes, series: Series) -> None:
    subjects = [subject for subject in workers.SUBJECTS if subject.name in rows]
    with (
        tempfile.TemporaryDirectory(prefix="scaling-", ignore_cleanup_errors=True) as name,
        Stage(Path(name).resolve(), sizes) as stage,
    ):
        for subject in subjects:
            stage.start(workers.peer_of(subject))
            workers.heat(stage, subject)
        for repeat in range(sizes.repeats):
            for subject in subjects:
                series.add(subject.name, workers.figures_of(stage, subject))
                logger.info("%s, repeat %d of %d, load %.2f", subject.name, repeat + 1, sizes.repeats, _load())
        if replicas.SUBJECT in rows:
            with replicas.started(stage, Path(name) / "replicas") as pair:
                for repeat in range(sizes.repeats):
                    series.add(replicas.SUBJECT, replicas.figures_of(stage, pair, repeat))
                    logger.info("%s, repeat %d of %d, load %.2f", replicas.SUBJECT, repeat + 1, sizes.repeats, _load())


def _load() -> float:
    return os.getloadavg()[0]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.scaling", description="Measure workers and replicas on this machine.")
    parser.add_argument("--quick", action="store_true", help="small bodies and one repeat, for development")
    parser.add_argument("--rows", metavar="NAME,...", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, metavar="N", help=f"default: {SIZES.repeats}, quick: {QUICK.repeats}")
    parser.add_argument(
        "--output", type=Path, help="folder for the results; default: bench/, or bench/work/ if partial"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
