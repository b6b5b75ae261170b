"""`python -m bench.load`: what concurrent clients and the size of a blob cost, for the proxy alone, all hits over TLS.

Requests a second of one manifest by 1 to 256 connections, kept and new; a blob of 64 KiB to 1 GiB by `hey` or curl; and
one blob by 1 to 64 curls at once, with the memory of the proxy.
"""

import dataclasses
import logging
import sys
import tempfile
from pathlib import Path

from bench import procfs
from bench.clients import curl, hey
from bench.peers import OURS, Instance
from bench.sizes import FULL, MIB, Sizes
from bench.stage import Stage
from bench.upstream import Door

CONNECTIONS = (1, 8, 64, 256)
STREAMS = (1, 4, 16, 64)
STREAMED_BYTES = 64 * MIB
SMALL_BLOBS = (64 << 10, 1 * MIB, 16 * MIB)
LARGE_BLOBS = (256 * MIB, 1024 * MIB)

SIZES: Sizes = dataclasses.replace(FULL, repeats=1, cold_blob_bytes=MIB, large_blob_bytes=MIB)


def main() -> int:
    """Measure, print, return 0."""
    logging.basicConfig(level=logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as name,
        Stage(Path(name).resolve(), SIZES) as stage,
    ):
        stage.start(OURS)
        instance = stage.warm[OURS.name]
        _requests(stage, instance)
        _sizes(stage, instance)
        _streams(stage, instance)
    return 0


def _requests(stage: Stage, instance: Instance) -> None:
    target = instance.targets[Door.FAST]
    stage.heat(OURS, Door.FAST, stage.content.manifest)
    for keep_alive in (True, False):
        for connections in CONNECTIONS:
            before_s = procfs.cpu_s(instance.pids())
            rate = hey(target, stage.content.manifest, seconds=4, connections=connections, keep_alive=keep_alive)
            cpu_us = (procfs.cpu_s(instance.pids()) - before_s) / (rate * 4) * 1e6
            kind = "kept" if keep_alive else "new"
            _say(f"manifest, {connections:>3} {kind} connections: {rate:7.0f} requests/s, {cpu_us:5.0f} us CPU each")


def _sizes(stage: Stage, instance: Instance) -> None:
    target = instance.targets[Door.FAST]
    for size_bytes in (*SMALL_BLOBS, *LARGE_BLOBS):
        path = stage.upstream.add_blob(f"bench/size-{size_bytes}", size_bytes)
        stage.heat(OURS, Door.FAST, path)
        before_s = procfs.cpu_s(instance.pids())
        if size_bytes in SMALL_BLOBS:
            rate = hey(target, path, seconds=4, connections=1, keep_alive=True)
            count, seconds = rate * 4, 1 / rate
        else:
            count, seconds = 1.0, curl(target, path)
        cpu_s = (procfs.cpu_s(instance.pids()) - before_s) / count
        speed, cpu_ms = size_bytes / seconds / 1e6, cpu_s * 1e3
        _say(
            f"blob of {size_bytes // 1024:>7} KiB: {seconds * 1e3:8.2f} ms, {speed:6.0f} MB/s, {cpu_ms:7.2f} ms of CPU"
        )


def _streams(stage: Stage, instance: Instance) -> None:
    target = instance.targets[Door.FAST]
    path = stage.upstream.add_blob("bench/streams", STREAMED_BYTES)
    stage.heat(OURS, Door.FAST, path)
    for clients in STREAMS:
        seconds = curl(target, path, times=clients)
        speed = STREAMED_BYTES * clients / seconds / 1e6
        rss_mib = procfs.rss_bytes(instance.pids()) / MIB
        _say(f"{clients:>2} curls at once: {speed:6.0f} MB/s in all, {rss_mib:4.0f} MiB (RSS) afterwards")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
