"""podman with storage, networks and state of its own, so that a test sees no container but its own.

`build` uses buildah on the same storage. Nothing is pulled: the images are those that tests import and build.
"""

import http.client
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.addresses import Address
from lab.programs import LabError, find_program

_PROGRAMS = (
    *("podman", "buildah", "runc", "/usr/lib/podman/netavark", "/usr/lib/podman/aardvark-dns", "podman-compose"),
    *("debootstrap", "ip", "bwrap", "avahi-daemon", "avahi-publish", "dbus-daemon", "docker-compose"),
    *("docker-registry", "skopeo"),
)
_LIMIT_S = 100.0
_READY_LIMIT_S = 30.0
_POLL_S = 0.05

_STORAGE = """\
[storage]
driver = "overlay"
runroot = "{directory}/run"
graphroot = "{directory}/graph"
"""
_ENGINE = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=1024:1024"]

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{directory}/tmp"

[network]
network_backend = "netavark"
network_config_dir = "{directory}/networks"
"""
"""The limits are lower than an unprivileged machine's own, which podman would try to raise."""


class Podman:
    """One podman whose whole state is in `directory`. Close it, or its containers go on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        for name, text in (("storage.conf", _STORAGE), ("containers.conf", _ENGINE)):
            (directory / name).write_text(text.format(directory=directory))
        (directory / "registries.conf").write_text("unqualified-search-registries = []\n")
        (directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.environment: Mapping[str, str] = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"),
            # podman would ask systemd for a timer a container; `podman healthcheck run` needs none
            "DISABLE_HC_SYSTEMD": "true",
        }

    def run(self, *arguments: str, check: bool = True, limit_s: float = _LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run one podman command; LabError with its output when it fails and `check` is set."""
        return self.execute([find_program("podman"), *arguments], check=check, limit_s=limit_s)

    def execute(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        limit_s: float = _LIMIT_S,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run any program that works on this podman's state; `environment` is instead of `self.environment`."""
        completed = subprocess.run(
            command,
            cwd=cwd or self.directory,
            env=environment or self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if check and completed.returncode != 0:
            raise LabError(f"{' '.join(command)}: {completed.returncode}\n{completed.stdout}{completed.stderr}")
        return completed

    def build(self, context: Path, containerfile: Path, image: str, *, options: Sequence[str] = ()) -> None:
        """Build `image`; its health check is kept, which needs Docker's format."""
        how = ["--format", "docker", "--isolation", "chroot", "--network", "host", "--layers=false", "--pull-never"]
        signature = ["--signature-policy", str(self.directory / "policy.json")]
        command = [find_program("buildah"), "bud", *how, *signature, *options, "--tag", image]
        self.execute([*command, "--file", str(containerfile), str(context)])

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """Return what podman knows of an image, container or network."""
        (found,) = json.loads(self.run(kind, "inspect", name).stdout)
        assert isinstance(found, dict)
        return found

    def start(self, image: str, *options: str, command: Sequence[str] = ()) -> "Container":
        """Start a container in the background; it is removed by `close`."""
        name = self.run("run", "--detach", "--pull=never", *options, image, *command).stdout.split()[-1]
        return Container(self, name)

    def close(self) -> None:
        """Remove all containers and networks, and what their file systems were mounted on."""
        self.run("rm", "--all", "--force", "--time", "1", check=False)
        self.run("network", "prune", "--force", check=False)
        self.run("volume", "prune", "--force", check=False)
        self.run("image", "umount", "--all", check=False)
        self.run("rmi", "--all", "--force", check=False)


class Container:
    """A container that was started."""

    def __init__(self, podman: Podman, name: str) -> None:
        self._podman = podman
        self.name = name

    @property
    def log(self) -> str:
        """All that it has printed."""
        completed = self._podman.run("logs", self.name)
        return completed.stdout + completed.stderr

    def execute(self, *command: str, check: bool = True) -> str:
        """Return what a command prints that runs inside."""
        return self._podman.run("exec", self.name, *command, check=check).stdout

    def wait_ready(self, address: Address) -> "Container":
        """Wait until a proxy in it answers at `address`; LabError with its log when it does not."""
        deadline_s = time.monotonic() + _READY_LIMIT_S
        while status(address, "/readyz") != 200:
            if not self.is_running or time.monotonic() > deadline_s:
                raise LabError(f"the container is not ready at {address}:\n{self.log}")
            time.sleep(_POLL_S)
        return self

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return bool(self.inspect()["State"]["Running"])

    def inspect(self) -> dict[str, Any]:
        """Return what podman knows of it."""
        return self._podman.inspect("container", self.name)

    def wait(self) -> int:
        """Return its exit code once it has ended by itself."""
        return int(self._podman.run("wait", self.name).stdout)

    def stop(self, limit_s: int) -> int:
        """Send its stop signal, after `limit_s` seconds KILL, and return the exit code: 137 is a KILL."""
        self._podman.run("stop", "--time", str(limit_s), self.name)
        return int(self.inspect()["State"]["ExitCode"])

    def remove(self) -> None:
        """Remove it and its anonymous volumes, running or not."""
        self._podman.run("rm", "--force", "--volumes", "--time", "1", self.name)


def status(address: Address, path: str) -> int:
    """Return the status of a GET, 0 when nobody answers."""
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def why_not() -> str | None:
    """Return why containers cannot be run on this machine, None if they can."""
    if os.geteuid() != 0:
        return "containers are built and run as root here"
    try:
        for program in _PROGRAMS:
            find_program(program)
    except LabError as error:
        return str(error)
    return None
