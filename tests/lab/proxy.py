"""The project's proxy as users start it: `entrypoint.sh` with a clean environment and the lab's settings."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

from lab.addresses import Address, free_port
from lab.http_client import Client, ProxyRoute, Response
from lab.programs import LabError, Program
from lab.skopeo import Skopeo

ENTRYPOINT = Path(__file__).parents[2] / "entrypoint.sh"

STOP_LIMIT_S = 5.0
"""The proxy promises to end within this time after TERM."""

_READY_LIMIT_S = 30.0
_REQUEST_LIMIT_S = 10.0
_POLL_S = 0.02


class Proxy:
    """One proxy with a cache and a CA of its own below `directory`; not started yet.

    `settings` are environment variables and win over the defaults; `arguments` are for mitmdump. A restart keeps port,
    cache and CA. With LAB_WORKERS in the environment of the tests, each proxy is so many processes.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.address = Address("127.0.0.1", free_port())
        self.cache_directory = directory / "cache"
        self.ca_directory = directory / "ca"
        self.settings = {
            "LISTEN_HOST": self.address.host,
            "LISTEN_PORT": str(self.address.port),
            "CACHE_DIRECTORY": str(self.cache_directory),
            "CA_DIRECTORY": str(self.ca_directory),
            "WORKERS": os.environ.get("LAB_WORKERS", "1"),
            **settings,
        }
        self.command = [str(ENTRYPOINT), *arguments]
        """What is started; a test may put a program before it."""
        self._program = Program("proxy", self.command, directory, environment=self._environment())

    def _environment(self) -> dict[str, str]:
        interpreter_directory = str(Path(sys.executable).parent)
        home = {"HOME": str(self._directory), "LANG": "C.UTF-8"}
        return {"PATH": f"{interpreter_directory}:{os.defpath}", **home, **self.settings}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start it and wait for `/readyz`; LabError with the end of its log when it does not get ready."""
        self._program = Program("proxy", self.command, self._directory, environment=self._environment())
        self._program.start()
        deadline_s = time.monotonic() + _READY_LIMIT_S
        while self.readiness() != 200:
            if not self._program.is_running:
                raise LabError(
                    f"the proxy ended at its start ({self._program.returncode}):\n{self._program.log_tail()}"
                )
            if time.monotonic() > deadline_s:
                self.kill()
                raise LabError(f"the proxy is not ready after {_READY_LIMIT_S} s:\n{self._program.log_tail()}")
            time.sleep(_POLL_S)
        return self

    def start_refused(self) -> subprocess.CompletedProcess[str]:
        """Run it with settings that it must refuse, and return exit code and output; TimeoutExpired if it stays up."""
        return subprocess.run(
            [str(ENTRYPOINT)],
            cwd=self._directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_READY_LIMIT_S,
            check=False,
        )

    def readiness(self) -> int:
        """Return the status of `/readyz`, 0 when nobody answers."""
        try:
            return self.request("GET", "/readyz").status
        except (OSError, HTTPException):
            return 0

    def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Return the answer to a plain request on the proxy's own port.

        `target` is a path for its own pages, or a whole http:// URL that it is to forward.
        """
        connection = HTTPConnection(*self.address, timeout=_REQUEST_LIMIT_S)
        try:
            connection.request(method, target, body, dict(headers or {}))
            with connection.getresponse() as response:
                return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stop(self) -> int:
        """Send TERM and return the exit code; LabError when it needs more than 5 s or leaves a child behind."""
        return self.stop_within(STOP_LIMIT_S)

    def stop_within(self, limit_s: float) -> int:
        """Stop it, with a longer DRAIN_TIMEOUT."""
        pids = self.pids()
        try:
            exit_code = self._program.stop(limit_s)
        finally:
            left = [pid for pid in pids if _session(pid) == self._program.pid]
            _kill(left)
        if left:
            raise LabError(f"the proxy ended but left {left} running:\n{self._program.log_tail()}")
        return exit_code

    def kill(self) -> None:
        """End it and its children at once, as a crash or a power cut would."""
        _kill(self.pids())
        self._program.kill()

    def restart(self) -> Self:
        """Stop it and start it again."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Leave nothing running; for the end of a test."""
        if self.is_running:
            self.kill()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._program.is_running

    def pids(self) -> list[int]:
        """Return its process id and those of its children that still run."""
        if not self._program.is_running:
            return []
        session = self._program.pid
        every = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in every if _session(pid) == session]

    def rss_bytes(self) -> int:
        """Return the memory that it and its children hold now, in bytes."""
        return sum(_rss_bytes(pid) for pid in self.pids())

    @property
    def log(self) -> str:
        """All that it has printed since its first start."""
        return self._program.log_text()

    @property
    def ca_file(self) -> Path:
        """The certificate that clients must trust."""
        return self.ca_directory / "ca.crt"

    def client(self) -> Client:
        """Return an HTTP client that goes through it and trusts its CA."""
        return Client(ProxyRoute(self.address, self.ca_file))

    def skopeo(self, name: str = "skopeo") -> Skopeo:
        """Return a skopeo that goes through it and trusts its CA, with a home called `name`."""
        return Skopeo(self._directory / name, self.ca_file, self.address)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int | None:
    """Return the session a process belongs to (proc(5), stat field 6), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the name in field 2 may contain blanks and brackets: count from its last bracket
    return int(stat.rpartition(")")[2].split()[3])


def _rss_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    sizes_kib = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
    return sum(sizes_kib) * 1024
