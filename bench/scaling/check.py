"""The model against reality: `python -m bench.scaling.check`, as root, writes results-model.md.

In a network namespace of its own, whose only interface (loopback) gets a line of known speed, one proxy serves warm
layers to 4, 8 and 16 clients by the mirror door. The clients are curl: three layers at a time, as containerd, or one
layer at a limited rate, as a node with a slow card. What the model says of the same is beside it.
"""

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bench import ROOT, machine
from bench.clients import ClientError
from bench.load import SIZES
from bench.report import align, pairs
from bench.scaling.inputs import Inputs, read_inputs
from bench.scaling.model import Scenario, simulate
from bench.scaling.workers import SUBJECTS, mirror_target, mirrored, peer_of
from bench.stage import Stage
from bench.upstream import Door
from lab.programs import find_program

RESULTS = ROOT / "bench/results-model.md"

_LINE_MBIT_S = 400
_CLIENTS = (4, 8, 16)
_LIMIT_S = 240
_INSIDE = "--inside"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of client."""

    title: str
    layers_bytes: tuple[int, ...]
    rate_bytes_s: int | None
    """What a client takes at most; None for all it gets."""


CASES = (
    Case("six layers of 64 MB in all, three at a time", (5, 20, 26, 9, 3, 1), None),
    Case("one layer of 32 MB, at 4 MB/s at most", (32,), 4_000_000),
)


def main() -> int:
    """Measure, write, return 0."""
    parser = argparse.ArgumentParser(prog="bench.scaling.check", description="Hold the model against real clients.")
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    if not chosen.inside:
        command = ["unshare", "--net", sys.executable, "-m", "bench.scaling.check", _INSIDE, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 - this very program
    _run("ip", "link", "set", "lo", "up")
    before = dict(machine.describe())
    lines = _measured(chosen.repeats, read_inputs())
    after = before | {"load after the run": f"{os.getloadavg()[0]:.2f}"}
    table = align([["clients", "each takes", "the model", "measured", "measured / model"], *lines])
    chosen.output.write_text(_page(table, chosen.repeats, after))
    sys.stdout.write(f"{table}\n")
    return 0


def _measured(repeats: int, inputs: Inputs) -> list[list[str]]:
    lines = []
    with (
        tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as name,
        Stage(Path(name).resolve(), SIZES) as stage,
    ):
        peer = peer_of(SUBJECTS[1])
        stage.start(peer)
        paths = {
            case: [stage.upstream.add_blob("check/layers", mb * 1_000_000) for mb in case.layers_bytes]
            for case in CASES
        }
        for every in paths.values():
            for path in every:
                stage.heat(peer, Door.FAST, path)
        options = ["rate", f"{_LINE_MBIT_S}mbit", "burst", "1mb", "latency", "200ms"]
        _run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", *options)
        base = f"http://{mirror_target(stage.warm[peer.name]).authority}"
        for case in CASES:
            for clients in _CLIENTS:
                urls = [f"{base}{mirrored(path)}" for path in paths[case]]
                seconds = sorted(_pull(urls, clients, case.rate_bytes_s) for _ in range(repeats))[repeats // 2]
                model_s = _predicted_s(case, clients, inputs)
                ratio = f"{seconds / model_s:.2f}"
                lines.append([str(clients), case.title, f"{model_s:.1f} s", f"{seconds:.1f} s", ratio])
    return lines


def _predicted_s(case: Case, clients: int, inputs: Inputs) -> float:
    scenario = Scenario(
        nodes=clients,
        workers=1,
        nic_gbit_s=_LINE_MBIT_S / 1000,
        layers_bytes=tuple(mb * 1_000_000 for mb in case.layers_bytes),
    )
    if case.rate_bytes_s is not None:
        scenario = replace(scenario, node_gbit_s=case.rate_bytes_s * 8 / 1e9)
    return simulate(scenario, inputs).last_download_s


def _pull(urls: Sequence[str], clients: int, rate_bytes_s: int | None) -> float:
    """Return the seconds until the last of so many clients has all bodies; ClientError."""
    command = [find_program("curl"), "--silent", "--show-error", "--fail", "--max-time", str(_LIMIT_S)]
    command += ["--parallel", "--parallel-immediate", "--parallel-max", "3"]
    command += [] if rate_bytes_s is None else ["--limit-rate", str(rate_bytes_s)]
    for url in urls:
        command += ["--output", "/dev/null", url]

    def pull(_number: int) -> None:
        done = subprocess.run(  # noqa: S603 - curl
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise ClientError(f"curl: exit code {done.returncode}\n{done.stderr}")

    began_s = time.monotonic()
    with ThreadPoolExecutor(clients) as threads:
        for _ in threads.map(pull, range(clients)):
            pass
    return time.monotonic() - began_s


def _run(program: str, *arguments: str) -> None:
    subprocess.run([find_program(program), *arguments], check=True, timeout=_LIMIT_S)  # noqa: S603 - ip and tc


def _page(table: str, repeats: int, described: Mapping[str, str]) -> str:
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return f"""# The model against real clients

Written by `make bench-scaling` on {today}. Do not edit. One proxy, one worker, warm, by the mirror door, behind a line
of {_LINE_MBIT_S} Mbit/s (`tc`, token bucket) in a network namespace; the clients are curl. Until the last byte at the
last client, median of {repeats}. The line carries headers of TCP and IP, too, which the model does not know.

{table}

{pairs(described)}
"""


if __name__ == "__main__":
    sys.exit(main())
