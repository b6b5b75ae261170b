"""The clients of Debian's next release, as a root for cells: its packages on the base that the image's tests use.

Made once and kept under `var/`. Cells never write to it.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from lab.clients.cell import why_not
from lab.debian_base import UnavailableError, base_archive
from lab.programs import find_program

PACKAGES = (
    *("buildah", "containerd", "docker-buildx", "docker-cli", "docker.io", "oras", "podman", "runc", "skopeo"),
    *("fuse-overlayfs", "netavark"),
)
_LIMIT_S = 500.0

_INSTALL = """
set -e
root=$1
shift
printf '#!/bin/sh\\nexit 101\\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial" "$root/var/log/apt"
cp /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" apt-get update -q
chroot "$root" apt-get install -qy --no-install-recommends "$@"
chroot "$root" apt-get clean
"""


def newer_root(directory: Path) -> Path:
    """Return the root folder, made if it is not in `directory` yet. Raises UnavailableError."""
    reason = why_not()
    if reason is not None:
        raise UnavailableError(reason)
    base = base_archive(directory)
    key = hashlib.sha256(f"{base.name} {PACKAGES} {_INSTALL}".encode()).hexdigest()[:12]
    root = directory / f"clients-{key}"
    if root.exists():
        return root
    unfinished = root.with_suffix(f".{os.getpid()}")
    unfinished.mkdir()
    try:
        _run(["tar", "--extract", "--file", str(base), "--directory", str(unfinished)])
        _run([find_program("unshare"), "--mount", "sh", "-c", _INSTALL, "install", str(unfinished), *PACKAGES])
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _run(command: list[str]) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
    try:
        completed = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} needed more than {_LIMIT_S} s") from error
    if completed.returncode != 0:
        last = (completed.stderr or completed.stdout).strip().splitlines()[-3:]
        raise UnavailableError(f"the newer clients cannot be installed: {' / '.join(last)}")
