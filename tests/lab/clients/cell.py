"""A small machine for a client: the files of this one or of another root, with everything it writes kept apart.

Each command runs in a mount and PID namespace of its own. It sees the root through an overlay whose upper half is in
memory, so that it may write to /etc, /run or /var/lib as it likes: what it wrote is gone with it, mounts too. Only the
cell's `directory` is shared, at its own path. The network is this machine's, where the proxy listens on loopback.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from lab.clients.client import Way
from lab.programs import DEBIAN_PACKAGES, LabError, Program, find_program

MACHINE = Path("/")
"""The root of this machine."""

_LIMIT_S = 60.0
_START_LIMIT_S = 30.0
_POLL_S = 0.02
_LONGEST_SOCKET_PATH = 107
"""Of a unix socket, in bytes (unix(7))."""

_ENTER = """
set -e
directory=$1 root=$2
shift 2
tree=$directory/tree
mount -t tmpfs tmpfs "$tree"
mkdir "$tree/upper" "$tree/work" "$tree/root"
mount -t overlay -o "lowerdir=$root,upperdir=$tree/upper,workdir=$tree/work" overlay "$tree/root"
root=$tree/root
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev/shm"
mkdir -p "$root$directory" "$root/etc/ssl/certs" "$root/run/lock"
mount --bind "$directory" "$root$directory"
cat "$directory/ca.crt" >>"$root/etc/ssl/certs/ca-certificates.crt"
cp -R --remove-destination "$directory/files/." "$root/"
exec chroot "$root" "$@"
"""


class Cell:
    """One small machine that knows the way to registries. Close it."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self.directory = directory
        self.root = root
        for name in ("files", "home", "tree"):
            (directory / name).mkdir(parents=True)
        (directory / "ca.crt").write_text("".join(file.read_text() for file in way.ca_files))
        # no name server: a client that asks for a registry by itself must fail, not leave the machine
        self.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        for path, text in way.files.items():
            self.write(path, text)
        self._daemons: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, path: str, text: str) -> None:
        """Give every command that starts from now on a file at the absolute `path`."""
        file = self.directory / "files" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        text_in: str = "",
        limit_s: float = _LIMIT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit code; subprocess.TimeoutExpired when it takes longer."""
        return subprocess.run(
            self._entering(command),
            cwd=self.directory,
            env=self._environment(environment),
            input=text_in,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def expect(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """Return what a command prints that must succeed; LabError otherwise."""
        completed = self.run(*command, environment=environment)
        if completed.returncode != 0:
            raise LabError(f"{' '.join(command)}: exit code {completed.returncode}\n{completed.stderr}")
        return completed.stdout

    def start(
        self, name: str, command: Sequence[str], unix_socket: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a daemon that ends with the cell and wait for its socket; LabError when it does not come."""
        if len(os.fsencode(unix_socket)) > _LONGEST_SOCKET_PATH:
            raise LabError(f"{unix_socket}: too long for a socket: choose a shorter temporary directory (TMPDIR)")
        daemon = Program(name, self._entering(command), self.directory, environment=self._environment(environment))
        daemon.start()
        self._daemons.append(daemon)
        deadline_s = time.monotonic() + _START_LIMIT_S
        while not _answers(unix_socket):
            if not daemon.is_running or time.monotonic() > deadline_s:
                raise LabError(f"{name} does not listen on {unix_socket}:\n{daemon.log_tail()}")
            time.sleep(_POLL_S)

    def log_tail(self) -> str:
        """Return what its daemons said last."""
        return "\n".join(daemon.log_tail() for daemon in self._daemons)

    def close(self) -> None:
        """End its daemons with everything that they started, and remove its files."""
        for daemon in self._daemons:
            _end(daemon)
        self._daemons.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _entering(self, command: Sequence[str]) -> list[str]:
        if self.root == MACHINE and command[0] in DEBIAN_PACKAGES:
            find_program(command[0])
        namespaces = ["--mount", "--pid", "--fork", "--kill-child"]
        enter = ["sh", "-c", _ENTER, "cell", str(self.directory), str(self.root)]
        return [find_program("unshare"), *namespaces, *enter, *command]

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        home = str(self.directory / "home")
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": home, "TMPDIR": home, "XDG_RUNTIME_DIR": home, "LANG": "C.UTF-8", **(more or {})}


def why_not() -> str | None:
    """Return why there can be no cell on this machine, None if there can."""
    if os.geteuid() != 0:
        return "these clients run in namespaces of their own, as root"
    try:
        subprocess.run([find_program("unshare"), "--mount", "--pid", "--fork", "true"], capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        return f"this machine gives no mount and PID namespace: {error.stderr.decode().strip()}"
    return None


def _answers(unix_socket: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(unix_socket))
        return True
    return False


def _end(daemon: Program) -> None:
    """End the first process of the PID namespace, and with it all others; `unshare` then ends by itself."""
    if not daemon.is_running:
        return
    for pid in _children(daemon.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.stop()


def _children(parent: int) -> list[int]:
    """Return the process ids whose parent (proc(5), stat field 4) is `parent`."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name in field 2 may contain blanks and brackets: count from its last bracket
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found
