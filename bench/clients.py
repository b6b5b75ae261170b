"""The clients that measure: curl for bodies, hey for requests per second, and starting the two of our own.

Each has a limit in time and speaks HTTP/1.1, whatever the server offers. A wrong status or a short body is an error:
a figure is of answers that a user would have wanted.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from bench import ROOT
from bench.peers import Target
from lab.image import MANIFEST
from lab.programs import find_program

LIMIT_S = 240
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class ClientError(Exception):
    """A client did not get what it asked for."""


def curl(target: Target, path: str, *, times: int = 1) -> float:
    """Pull a body with so many curls at once; return the seconds from the first start to the last end."""
    command = [find_program("curl"), "--http1.1", "--silent", "--show-error", "--fail", "--max-time", str(LIMIT_S)]
    command += ["--cacert", str(target.ca_file), "--output", "/dev/null"]
    command += ["--header", f"Accept: {MANIFEST}, */*"]
    command += ["--write-out", "%{http_code} %{size_download} %header{content-length}"]
    if target.proxy is not None:
        command += ["--proxy", f"http://{target.proxy}"]
    started_s = time.monotonic()
    with ExitStack() as cleanup:
        children = [_Child(cleanup, [*command, target.url(path)]) for _ in range(times)]
        answers = [child.finish() for child in children]
    seconds = time.monotonic() - started_s
    for answer in answers:
        status, size, announced = answer.split(" ")
        if status != "200" or size != announced:
            raise ClientError(f"curl {target.url(path)}: status {status}, {size} of {announced} bytes")
    return seconds


def hey(target: Target, path: str, *, seconds: int, connections: int, keep_alive: bool) -> float:
    """Return the requests per second that got a 200; ClientError when any got something else."""
    command = [find_program("hey"), "-z", f"{seconds}s", "-c", str(connections), "-t", "10", "-disable-compression"]
    command += ["-H", f"Accept: {MANIFEST}"]
    if not keep_alive:
        command.append("-disable-keepalive")
    if target.proxy is not None:
        command += ["-x", f"http://{target.proxy}"]
    with ExitStack() as cleanup:
        text = _Child(cleanup, [*command, target.url(path)]).finish()
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    statuses = set(re.findall(r"\[(\d{3})\]\s+\d+ responses", text))
    if rate is None or statuses != {"200"} or "Error distribution" in text:
        raise ClientError(f"hey {target.url(path)}:\n{text}")
    return float(rate.group(1))


@dataclass(frozen=True, slots=True)
class Streamed:
    """One body as `bench.stream_client` saw it, in seconds from its own start."""

    first_byte_s: float
    """Of the body, not of the headers."""
    last_byte_s: float
    size_bytes: int


def stream(target: Target, path: str, *, times: int) -> list[Streamed]:
    """Pull a body with so many clients of our own, each a program of its own, which start at the same moment."""
    command = [sys.executable, "-m", "bench.stream_client", *_address_of(target, path)]
    with ExitStack() as cleanup:
        children = [_Child(cleanup, command) for _ in range(times)]
        for child in children:
            child.expect("ready")
        for child in children:
            child.say("go")
        return [Streamed(**json.loads(child.finish())) for child in children]


class SlowClients:
    """Clients that read a body slowly, in a program of their own; they read while this is used as a context manager."""

    def __init__(self, target: Target, path: str, *, clients: int, rate_bytes_per_s: int) -> None:
        self._command = [sys.executable, "-m", "bench.slow_clients", *_address_of(target, path)]
        self._command += ["--clients", str(clients), "--rate", str(rate_bytes_per_s), "--seconds", str(LIMIT_S)]
        self._cleanup = ExitStack()
        self._child: _Child | None = None
        self._clients = clients

    def __enter__(self) -> Self:
        """Return when every one of them has its first bytes."""
        self._child = _Child(self._cleanup, self._command)
        try:
            self._child.expect("ready")
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def finish(self) -> float:
        """Let them stop and return the bytes per second that one of them got; ClientError when one was cut off."""
        assert self._child is not None
        self._child.say("stop")
        answer = json.loads(self._child.finish())
        if answer["reading"] != self._clients:
            raise ClientError(f"{answer['reading']} of {self._clients} slow clients were still served")
        return float(answer["bytes_per_s"])


def _address_of(target: Target, path: str) -> list[str]:
    arguments = [target.url(path), "--ca-file", str(target.ca_file)]
    if target.proxy is not None:
        arguments += ["--proxy", str(target.proxy)]
    return arguments


class _Child:
    """A client program, killed by its process id when `cleanup` closes and it still runs."""

    def __init__(self, cleanup: ExitStack, command: Sequence[str]) -> None:
        self._name = os.path.basename(command[0])  # noqa: PTH119 - a command is text
        self._child = subprocess.Popen(  # noqa: S603 - the programs of the benchmark
            command,
            cwd=ROOT,
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        cleanup.callback(self._end)

    def expect(self, word: str) -> None:
        """Wait for a line. The programs that say one limit their own time."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline().strip()
        if line != word:
            self._child.kill()
            _, errors = self._child.communicate(timeout=LIMIT_S)
            raise ClientError(f"{self._name} said {line!r} instead of {word!r}:\n{errors}")

    def say(self, word: str) -> None:
        """Send a line."""
        assert self._child.stdin is not None
        self._child.stdin.write(word + "\n")
        self._child.stdin.flush()

    def finish(self) -> str:
        """Return what it prints from now on; ClientError when it fails or needs too long."""
        try:
            output, errors = self._child.communicate(timeout=LIMIT_S + 10)
        except subprocess.TimeoutExpired:
            raise ClientError(f"{self._name} needs more than {LIMIT_S} s") from None
        if self._child.returncode != 0:
            raise ClientError(f"{self._name}: exit code {self._child.returncode}\n{errors}")
        return output

    def _end(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate(timeout=LIMIT_S)
