"""What runs beside the proxy in a container: the health check, and what the entry point does as process 1."""

import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.addresses import free_port

ROOT = Path(__file__).parents[2]
HEALTHCHECK = ROOT / "healthcheck.py"


@dataclass(frozen=True)
class Started:
    """An entry point as process 1 of a PID namespace."""

    process: "subprocess.Popen[str]"

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait_for_process_1(self) -> int:
        """Return its process id outside, once the shell has set its first trap."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        limit_s = time.monotonic() + 20
        while time.monotonic() < limit_s:
            for child in children.read_text().split():
                status = Path(f"/proc/{child}/status").read_text()
                caught = int(re.search(r"^SigCgt:\t(\w+)", status, re.MULTILINE)[1], 16)  # type: ignore[index]
                if caught & 1 << (signal.SIGTERM - 1):
                    return int(child)
            time.sleep(0.001)
        raise AssertionError("there is no process 1")


@pytest.fixture
def serve() -> Iterator[Callable[[int], int]]:
    """Yield what starts a server on 127.0.0.1 that answers `/readyz` with a status, and returns its port."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> int:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/readyz" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, args=[0.01]).start()
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def check(**environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(HEALTHCHECK)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (404, 1)])
def test_a_proxy_is_healthy_when_it_says_that_it_is_ready(
    serve: Callable[[int], int], status: int, exit_code: int
) -> None:
    """A proxy that answers but cannot serve yet is not; the engine is told the status line."""
    done = check(LISTEN_PORT=str(serve(status)))
    assert done.returncode == exit_code
    assert (str(status) in done.stderr) == (exit_code == 1)


def test_a_proxy_that_does_not_answer_is_told_in_one_line(serve: Callable[[int], int]) -> None:
    """No trace of Python, which nobody would look for in a health log."""
    port = serve(200)
    done = check(LISTEN_HOST="127.0.0.2", LISTEN_PORT=str(port))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "refused" in done.stderr


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, ("127.0.0.1", 3128)),
        ({"LISTEN_PORT": "80"}, ("127.0.0.1", 80)),
        ({"LISTEN_HOST": "0.0.0.0"}, ("127.0.0.1", 3128)),  # noqa: S104 - parsed, not listened on
        ({"LISTEN_HOST": "::"}, ("::1", 3128)),
        ({"LISTEN_HOST": "[::1]", "LISTEN_PORT": "'3129'"}, ("::1", 3129)),
        ({"LISTEN_HOST": "192.0.2.7", "LISTEN_PORT": ""}, ("192.0.2.7", 3128)),
    ],
)
def test_it_asks_where_the_settings_let_the_proxy_listen(environ: dict[str, str], address: tuple[str, int]) -> None:
    """All addresses are asked at the loopback one; quotes and brackets are read as the proxy reads them."""
    assert runpy.run_path(str(HEALTHCHECK))["listening_address"](environ) == address


def test_it_asks_where_the_settings_file_lets_the_proxy_listen(tmp_path: Path) -> None:
    """A port of CONFIG_FILE is found, and the environment wins over it as it does for the proxy."""
    (tmp_path / "settings.yaml").write_text("listen_host: 192.0.2.7\nlisten_port: 3333\n")
    listening_address = runpy.run_path(str(HEALTHCHECK))["listening_address"]
    environ = {"CONFIG_FILE": str(tmp_path / "settings.yaml")}
    assert listening_address(environ) == ("192.0.2.7", 3333)
    assert listening_address({**environ, "LISTEN_PORT": "4444"}) == ("192.0.2.7", 4444)


def test_sqlite_has_a_place_for_its_temporary_files(tmp_path: Path) -> None:
    """With a read-only root file system it would find none: the cache directory may be the only one to write to."""
    programs, cache = tmp_path / "bin", tmp_path / "the cache"
    programs.mkdir()
    (programs / "mitmdump").write_text('import os\nprint(os.environ["SQLITE_TMPDIR"])\n')
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (tmp_path / "checkout").mkdir()
    shutil.copy(ROOT / "entrypoint.sh", tmp_path / "checkout")
    (tmp_path / "checkout/addons").symlink_to(ROOT / "addons")
    directories = {"CACHE_DIRECTORY": str(cache), "CA_DIRECTORY": str(tmp_path / "ca")}
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "LISTEN_HOST": "127.0.0.1", **directories}
    with socket.create_server(("127.0.0.1", 0)) as free:
        environment["LISTEN_PORT"] = str(free.getsockname()[1])
    entry = tmp_path / "checkout/entrypoint.sh"
    done = subprocess.run([entry], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{cache}\n"


@pytest.fixture
def start_as_process_1(tmp_path: Path) -> Iterator[Callable[[str], Started]]:
    """Yield what starts the entry point as process 1, as a container does, with a program in mitmdump's place."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a process 1")
    programs, checkout = tmp_path / "bin", tmp_path / "checkout"
    programs.mkdir()
    checkout.mkdir()
    (programs / "python3").write_text(
        f'#!/bin/sh\ncase "$*" in *mitmdump*) echo Python starts; sleep 0.5 ;; esac\nexec "{sys.executable}" "$@"\n'
    )
    shutil.copy(ROOT / "entrypoint.sh", checkout)
    (checkout / "addons").symlink_to(ROOT / "addons")
    directories = {"CACHE_DIRECTORY": str(tmp_path / "cache"), "CA_DIRECTORY": str(tmp_path / "ca")}
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "LISTEN_HOST": "127.0.0.1", "LISTEN_PORT": str(free_port())}
    started: list[Started] = []

    def start(program: str) -> Started:
        (programs / "mitmdump").write_text(program)
        for path in programs.iterdir():
            path.chmod(0o755)
        command = ["unshare", "--pid", "--fork", "--kill-child", str(checkout / "entrypoint.sh")]
        process = subprocess.Popen(command, env=environment | directories, stdout=subprocess.PIPE, text=True)
        started.append(Started(process))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_process_1_ends_as_the_program_does(start_as_process_1: Callable[[str], Started]) -> None:
    """With its exit code; a signal is the program's to handle, as often as it comes."""
    assert start_as_process_1("import sys; sys.exit(7)").process.wait(20) == 7
    running = start_as_process_1(
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('up', flush=True)\n"
        "for _ in range(2):\n    print(signal.sigwait({signal.SIGTERM}).name, flush=True)\n"
        "sys.exit(3)\n"
    )
    assert [running.line(), running.line()] == ["Python starts\n", "up\n"]
    for _ in range(2):
        os.kill(running.wait_for_process_1(), signal.SIGTERM)
        assert running.line() == "SIGTERM\n"
    assert running.process.wait(20) == 3


@pytest.mark.parametrize("moment", ["settings", "program"])
def test_process_1_ends_at_a_signal_that_comes_while_it_starts(
    start_as_process_1: Callable[[str], Started], moment: str
) -> None:
    """The kernel would drop it for a process 1 that has no handler, as Python has none while it starts."""
    starting = start_as_process_1("import time\ntime.sleep(60)\n")
    process_1 = starting.wait_for_process_1()
    if moment == "program":
        assert starting.line() == "Python starts\n"
    os.kill(process_1, signal.SIGTERM)
    assert starting.process.wait(20) == 0
