"""Starting and stopping the real programs of the lab, each by its own process id.

A program that is not installed is an error that names its Debian package: a test that silently skips proves nothing.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.addresses import Address

DEBIAN_PACKAGES: Mapping[str, str] = {
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
    "/usr/lib/podman/netavark": "netavark",
    "avahi-daemon": "avahi-daemon",
    "avahi-publish": "avahi-utils",
    "buildah": "buildah",
    "busybox": "busybox",
    "bwrap": "bubblewrap",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "containerd": "containerd",
    "ctr": "containerd",
    "dbus-daemon": "dbus-daemon",
    "debootstrap": "debootstrap",
    "docker-compose": "docker-compose",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "ip": "iproute2",
    "jq": "jq",
    "nginx": "nginx-light",
    "podman": "podman",
    "podman-compose": "podman-compose",
    "runc": "runc",
    "shellcheck": "shellcheck",
    "skopeo": "skopeo",
    "tc": "iproute2",
    "unshare": "util-linux",
}

_START_LIMIT_S = 20.0
_STOP_LIMIT_S = 5.0
_POLL_S = 0.01


class LabError(Exception):
    """The lab itself failed: a program is missing, did not start or did not stop."""


def find_program(name: str) -> str:
    """Return the path of a program; LabError with the Debian package when it is not installed."""
    path = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        package = DEBIAN_PACKAGES[name]
        raise LabError(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return path


def accepts_connections(address: Address) -> bool:
    """Return whether something listens on `address`."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


class Program:
    """One child with a log file, in a session of its own so that a Ctrl-C in the terminal does not reach it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        listens_on: Address | None = None,
    ) -> None:
        self.name = name
        self.log_file = directory / f"{name}.log"
        self._command = list(command)
        self._directory = directory
        self._environment = dict(environment) if environment is not None else {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self._listens_on = listens_on
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens; LabError with the end of its log when it does not."""
        if self.is_running:
            return
        if self._listens_on is not None and accepts_connections(self._listens_on):
            raise LabError(f"{self.name}: something else listens on {self._listens_on}")
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if self._listens_on is not None:
            self._wait_until_listening(self._listens_on)

    def _wait_until_listening(self, address: Address) -> None:
        deadline_s = time.monotonic() + _START_LIMIT_S
        while not accepts_connections(address):
            if not self.is_running:
                raise LabError(f"{self.name} ended at its start:\n{self.log_tail()}")
            if time.monotonic() > deadline_s:
                self.kill()
                raise LabError(f"{self.name} does not listen on {address}:\n{self.log_tail()}")
            time.sleep(_POLL_S)

    @property
    def is_running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its process id; LabError when it was never started."""
        if self._child is None:
            raise LabError(f"{self.name} was not started")
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self._child is None else self._child.poll()

    def stop(self, limit_s: float = _STOP_LIMIT_S) -> int:
        """Send TERM and return the exit code (negative: the signal); LabError when it needs longer than `limit_s`."""
        if self._child is None:
            return 0
        if self.is_running:
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"{self.name} needed more than {limit_s} s to stop:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, for example SIGSTOP and SIGCONT to freeze and thaw it."""
        if self._child is not None:
            self._child.send_signal(number)

    def log_text(self) -> str:
        """Return all that it has printed."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it has printed."""
        return "\n".join(self.log_text().splitlines()[-lines:])
