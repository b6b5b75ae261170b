"""The tables of docs/scaling.md: `python -m bench.scaling.tables --write` renews them, a test compares."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench import ROOT
from bench.report import align
from bench.scaling.inputs import DoorCosts, Inputs, read_inputs
from bench.scaling.model import Outcome, Scenario, State, simulate

PAGE = ROOT / "docs/scaling.md"

_NODES = (100, 1_000, 10_000)
_REPLICAS = (1, 2, 4, 8)
_GB = 1e9
_ROLLOUTS: Mapping[str, Mapping[str, float]] = {
    "at once": {},
    "within 5 minutes": {"window_s": 300},
    "within 30 minutes": {"window_s": 1800},
    "at once, one in a hundred has it": {"seeds": 0.01},
}
_BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Print the tables, or write them into the page; return 0."""
    parser = argparse.ArgumentParser(prog="bench.scaling.tables", description="The tables of docs/scaling.md.")
    parser.add_argument("--write", action="store_true", help="renew them in the page")
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args()
    tables = all_tables(read_inputs())
    if chosen.write:
        chosen.page.write_text(renewed(chosen.page.read_text(), tables))
    else:
        sys.stdout.write("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()) + "\n")
    return 0


def all_tables(inputs: Inputs) -> Mapping[str, str]:
    """Return all tables by name."""
    return {name: make(inputs) for name, make in _TABLES.items()}


def renewed(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with these tables. KeyError for one that does not exist."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n\n{tables[block[2]]}\n\n{block[3]}", page)


def _inputs(inputs: Inputs) -> str:
    """List what the model takes for given."""
    mirror, tls = inputs.doors["mirror"], inputs.doors["tls"]
    rows: list[tuple[str, Callable[[DoorCosts], str]]] = [
        ("a manifest on a kept connection", lambda door: f"{door.kept_s * 1e3:.2f} ms of a core"),
        ("a new connection with one", lambda door: f"{door.new_s * 1e3:.2f} ms"),
        ("more of it for each further worker", lambda door: f"{door.new_more_for_worker_s * 1e3:.2f} ms"),
        ("sending 1 GiB", lambda door: f"{door.cpu_s_per_gib:.2f} s"),
        ("memory for a connection", lambda door: f"{door.connection_bytes / 1e3:,.1f} kB"),
    ]
    lines = [[title, f"{figure(mirror)}; by TLS {figure(tls)}", "measured"] for title, figure in rows]
    lines += [
        ["1 GiB from the registry", f"{inputs.cold_cpu_s_per_gib} s of a core", "measured"],
        ["1 GiB from the bucket", f"{inputs.bucket_cpu_s_per_gib} s of a core", "measured"],
        ["one worker", f"{inputs.worker_bytes / 1e6:.0f} MB", "measured"],
        ["one download from the bucket", f"{inputs.bucket_bytes_s / 1e6:.0f} MB/s", "measured"],
        [
            "one from the registry",
            f"{inputs.download_bytes_s / 1e6:.0f} MB/s",
            "4 connections of 40 MB/s, as CDNs limit each",
        ],
        ["line to the registries", f"{inputs.line_gbit_s:g} Gbit/s for all replicas", "assumed"],
        ["line to the bucket", f"{inputs.bucket_gbit_s:g} Gbit/s for all replicas", "assumed"],
        ["a node's card", f"{inputs.node_gbit_s:g} Gbit/s", "assumed"],
        [
            "a node unpacks",
            f"{inputs.unpack_bytes_s / 1e6:.0f} MB/s of compressed layers",
            "assumed; Spegel's benchmark has 12 s for 1 GB in 4 layers",
        ],
        ["layers at a time", str(inputs.layers_at_a_time), "containerd"],
        ["the image", ", ".join(f"{size / 1e6:.0f}" for size in inputs.layers_bytes) + " MB", "assumed"],
    ]
    return _table(["input", "figure", "from"], lines)


def _at_once(inputs: Inputs) -> str:
    """Show what replicas do when everything is warm."""
    scenarios = [Scenario(nodes=nodes, replicas=replicas) for nodes in _NODES for replicas in _REPLICAS]
    head = ["nodes", "replicas", "last node", "peak of each", "sent by each", "cores", "CPU", "memory", "limit"]
    return _table(head, ([s.nodes, s.replicas, *_of_replica(simulate(s, inputs))] for s in scenarios))


def _by_card(inputs: Inputs) -> str:
    """Let 1,000 nodes ask one replica, by cards, doors and workers."""
    lines = []
    for nic_gbit_s in (1, 10, 25, 100):
        for door in ("mirror", "tls"):
            cells: list[object] = [f"{nic_gbit_s} Gbit/s", door]
            for workers in (1, 2, 4, 8):
                scenario = Scenario(nodes=1_000, workers=workers, nic_gbit_s=nic_gbit_s, door=door)
                outcome = simulate(scenario, inputs)
                cells.append(f"{_seconds(outcome.last_node_s)} ({outcome.limit.split(' of ')[0]})")
            lines.append(cells)
    return _table(["card", "door", *(f"WORKERS={workers}" for workers in (1, 2, 4, 8))], lines)


def _cold(inputs: Inputs) -> str:
    """Show what the registry and its line feel, by where the image is."""
    lines = []
    for nodes in (100, 1_000):
        for replicas in _REPLICAS:
            cells: list[object] = [nodes, replicas]
            for state in (State.COLD, State.BUCKET, State.WARM):
                outcome = simulate(Scenario(nodes=nodes, replicas=replicas, state=state), inputs)
                cells += [_seconds(outcome.last_node_s), f"{outcome.upstream_bytes / _GB:.0f} GB"]
            lines.append(cells[:-1])
    head = ["nodes", "replicas", "cold", "from the registry", "in the bucket", "from the registry", "on every disk"]
    return _table(head, lines)


def _peers(inputs: Inputs) -> str:
    """Put a P2P layer in front: of nodes that come at once, of a rollout, and where some nodes have the image."""
    lines = []
    for nodes in (1_000, 10_000):
        for what, change in _ROLLOUTS.items():
            seeds = int(change.get("seeds", 0) * nodes)
            base = Scenario(nodes=nodes - seeds, window_s=change.get("window_s", 0.0), seeds=seeds)
            cells: list[object] = [nodes, what]
            for outcome in (simulate(base, inputs), simulate(replace(base, has_peers=True), inputs)):
                cells += [_seconds(outcome.last_node_s), f"{outcome.replica_sent_bytes / _GB:,.0f} GB"]
            lines.append(cells)
    head = ["nodes", "they begin", "last node", "sent", "last node, with peers", "sent, with peers"]
    return _table(head, lines)


def _published(inputs: Inputs) -> str:
    """Put what others have published beside what the model says of us in their place."""
    kraken = Scenario(
        nodes=2_600, workers=8, nic_gbit_s=25, node_gbit_s=2.4, layers_bytes=(1_500_000_000, 1_500_000_000)
    )
    azure = Scenario(
        nodes=10, workers=4, nic_gbit_s=12.5, node_gbit_s=12.5, layers_bytes=(250_000_000,) * 4, state=State.COLD
    )
    cold, one = replace(azure, line_gbit_s=10.0), Scenario(nodes=1, nic_gbit_s=10)
    rows: list[list[object]] = []
    for replicas in (1, 5, 16):
        outcome = simulate(replace(kraken, replicas=replicas), inputs)
        what = "Kraken: 3 GB in 2 layers, 2,600 hosts at 300 MB/s, 5 origins"
        us = f"{replicas} x 25 Gbit/s, warm: {_seconds(outcome.last_download_s)} to the last byte"
        rows.append([what, "p50 10 s, p99.9 22 s", us])
    spegel = simulate(cold, inputs)
    rows.append(
        [
            "Spegel: 1 GB in 4 layers, 10 nodes, created at once",
            "12.2 s (12.5 s without it), slowest 13.3 s",
            f"1 replica, cold, a line of 10 Gbit/s: {_seconds(spegel.last_node_s)}",
        ]
    )
    dragonfly = simulate(one, inputs)
    rows.append(
        [
            "Dragonfly (dfbench): 1 GB to one host",
            "4.9 to 6.1 s",
            f"1 replica, warm: {dragonfly.last_download_s:.1f} s to the last byte",
        ]
    )
    return _table(["published", "their figure", "the model of us"], rows)


_TABLES: Mapping[str, Callable[[Inputs], str]] = {
    "inputs": _inputs,
    "at-once": _at_once,
    "by-card": _by_card,
    "cold": _cold,
    "peers": _peers,
    "published": _published,
}


def _of_replica(outcome: Outcome) -> list[str]:
    return [
        _seconds(outcome.last_node_s),
        f"{outcome.replica_peak_gbit_s:.1f} Gbit/s",
        f"{outcome.replica_sent_bytes / _GB:,.0f} GB",
        f"{outcome.replica_peak_cores:.1f}",
        f"{outcome.replica_cpu_s:,.0f} s",
        f"{outcome.replica_memory_bytes / 1e6:,.0f} MB",
        outcome.limit,
    ]


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:,.1f} h"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    return align(
        [list(head), *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines)]
    )


if __name__ == "__main__":
    sys.exit(main())
