"""This machine's root as a copy that can be changed and thrown away: an overlay in a mount namespace of its own.

Its programs and files are this machine's; what is written stays in memory and is gone at the end. The network is the
machine's, so that a proxy on loopback is reached. `systemctl` writes down what it was asked for, as nothing is to be
restarted, and shows the files of units.
"""

import hashlib
import os
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from lab.programs import LabError

_START = """\
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount --rbind /dev /mnt/root/dev
mount --rbind /sys /mnt/root/sys
for empty in run tmp root var/lib/containerd var/lib/containers var/lib/docker; do
    mkdir -p "/mnt/root/$empty"
    mount -t tmpfs tmpfs "/mnt/root/$empty"
done
mkdir -p /mnt/root/run/systemd/system /mnt/root/etc/systemd/system
chmod 1777 /mnt/root/tmp
echo ready
# Until whoever started this ends, also when it is killed.
exec cat
"""
_SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>/run/systemctl-called
case $1 in
    cat) for file in /etc/systemd/system/$2.d/*.conf; do [ -f "$file" ] && echo "# $file" && cat "$file"; done ;;
    show) sed -n 's/^Environment=//p' "/etc/systemd/system/$4.d/"*.conf 2>/dev/null | tr -d '"' | tr '\\n' ' ' ;;
esac
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WATCHED = ("etc", "root", "usr/local/share", "usr/share/ca-certificates", "var/lib/registry-proxy-setup")
_START_LIMIT_S = 20.0
_LIMIT_S = 100.0

type Tree = Mapping[str, tuple[int, int, int, str]]
"""Mode, owner, group and content (hash or link target) of everything below the places that set-up scripts change."""


def why_no_root() -> str | None:
    """Return why there can be no such root here, None if there can."""
    if os.geteuid() != 0:
        return "a root of its own needs root"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"this machine gives no mount namespace: {tried.stderr.strip()}"


class ThrowawayRoot:
    """One such root; close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != "ready\n":
            _, error = self._keeper.communicate(timeout=_START_LIMIT_S)
            raise LabError(f"no throw-away root: {error}")
        self._started: list[subprocess.Popen[bytes]] = []
        self.write("usr/local/bin/systemctl", _SYSTEMCTL, mode=0o755)
        # Java's own copy of the trust store takes seconds to make, and has the time in it.
        for hook in (self.path / "etc/ca-certificates/update.d").glob("*"):
            hook.unlink()
        self.write("etc/ca-certificates.conf", "")
        self.run("update-ca-certificates", "--fresh")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started in it, and it."""
        for child in reversed(self._started):
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._keeper.send_signal(signal.SIGKILL)
        self._keeper.communicate()

    @property
    def path(self) -> Path:
        """Where this process sees it."""
        return Path(f"/proc/{self._keeper.pid}/root/mnt/root")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put a file there; `path` is relative to the root."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return (self.path / path).read_text()

    def has(self, program: str) -> bool:
        """Whether a program is there."""
        return self.run("which", program).returncode == 0

    def hide(self, program: str) -> None:
        """Let a program be missing."""
        for directory in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"):
            (self.path / directory / program).unlink(missing_ok=True)

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs `words` inside."""
        inside = ["chroot", "/mnt/root", "env", "-i", f"PATH={_PATH}", "HOME=/root", *words]
        return ["nsenter", "--mount", f"--target={self._keeper.pid}", "--", *inside]

    def run(self, *words: str, script: str = "", limit_s: float = _LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run a command inside, without a terminal; `script` is its standard input."""
        return subprocess.run(
            self.command(words),
            input=script,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            start_new_session=True,
        )

    def start(self, *words: str, log: Path) -> None:
        """Start a program inside that ends with the root."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                self.command(words), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._started.append(child)

    def wait_for(self, path: str, limit_s: float = 60.0) -> None:
        """Wait until a file or socket is there; LabError when it does not come."""
        deadline_s = time.monotonic() + limit_s
        while not (self.path / path).exists():
            if time.monotonic() > deadline_s:
                raise LabError(f"{path} did not appear in {limit_s} s")
            time.sleep(0.05)

    def systemctl_calls(self) -> list[str]:
        """Return what the service manager was asked to do, in order, without what it was only asked to show."""
        file = self.path / "run/systemctl-called"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.partition(" ")[0] not in ("cat", "show")]

    def tree(self) -> Tree:
        """Return everything that a set-up script may change."""
        found: dict[str, tuple[int, int, int, str]] = {}
        for top in _WATCHED:
            for directory, names, files in os.walk(self.path / top):
                for name in (".", *names, *files):
                    file = Path(directory) / name
                    status = file.lstat()
                    found[str(file.relative_to(self.path))] = (
                        status.st_mode,
                        status.st_uid,
                        status.st_gid,
                        _content(file, status.st_mode),
                    )
        return found


def _content(file: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return str(file.readlink())
    return hashlib.sha256(file.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
