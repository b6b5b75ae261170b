"""What runs beside the proxy in a container: the health check, and the way to be process 1."""

import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEALTHCHECK = ROOT / "healthcheck.py"
PROCESS_ONE = ROOT / "process_one.py"


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


def test_process_one_becomes_the_program(tmp_path: Path) -> None:
    """Arguments and exit code are the program's."""
    program = tmp_path / "program"
    program.write_text("import sys\nprint(__name__, *sys.argv[1:])\nsys.exit(7)\n")
    command = [sys.executable, str(PROCESS_ONE), str(program), "--set", "a=b c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "__main__ --set a=b c\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_one_ends_before_the_program_has_a_handler(tmp_path: Path, number: signal.Signals) -> None:
    """For process 1 the kernel would drop the signal; here the exit code is that of our handler."""
    program = tmp_path / "program"
    program.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, str(PROCESS_ONE), str(program)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.wait(20) == 0
