"""The parent of the workers, with workers that do nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.addresses import free_port
from lab.wait import wait_until

ADDONS = Path(__file__).parents[3] / "addons"

WORKER = f"""#!{sys.executable}
import json, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
number, _, channel, *_ = json.loads(os.environ["REGISTRY_PROXY_WORKER"])
os.write(channel, b'{{"do":"ready"}}\\n')
open(f"started-{{number}}-{{os.getpid()}}", "w").close()
while os.read(channel, 4096):
    pass
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    program = tmp_path / "worker"
    program.write_text(WORKER)
    program.chmod(0o755)
    return program


@pytest.fixture
def supervisor(tmp_path: Path, program: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run two workers."""
    command = [
        sys.executable,
        "-m",
        "regproxy.engine.supervisor",
        "2",
        "127.0.0.1",
        str(free_port()),
        "0",
        str(program),
    ]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ADDONS)}
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen([*command, str(program)], cwd=tmp_path, env=environment, stderr=said)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def started(directory: Path, number: int) -> list[int]:
    """Return the process ids that a worker's place has had."""
    return [int(path.name.rpartition("-")[2]) for path in directory.glob(f"started-{number}-*")]


def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, program: Path, supervisor: subprocess.Popen[bytes]
) -> None:
    """No memory or no process for it at this moment, or its program is just being replaced."""
    wait_until(lambda: bool(started(tmp_path, 2)), "both workers")
    away = program.rename(tmp_path / "away")
    (victim,) = started(tmp_path, 2)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "worker 2 cannot be started" in (tmp_path / "said").read_text(), "a start in vain")
    away.rename(program)
    wait_until(lambda: len(started(tmp_path, 2)) == 2, "the worker is there again")
    supervisor.terminate()
    assert supervisor.wait(30) == 0
