"""A folder that stands for a node's /etc/containerd, and the script that works on it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.kubernetes import KUSTOMIZE

SCRIPT = KUSTOMIZE / "overlays/containerd-nodes/node-mirrors.sh"
MARK = "# Written by node-mirrors.sh of registry-proxy"

_LIMIT_S = 30.0


class Node:
    """One node whose containerd reads `hosts`, which is not there yet."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.hosts = directory / "certs.d"
        self.config = directory / "config.toml"
        self.applied = directory.parent / f"{directory.name}-applied"
        directory.mkdir()
        self.config.write_text(
            f"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = '{self.hosts}'\n"
        )
        self.settings = {
            "PATH": os.environ["PATH"],
            "HOSTS_DIRECTORY": str(self.hosts),
            "CONTAINERD_CONFIG": str(self.config),
            **settings,
        }

    def run(self, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the script to its end."""
        return subprocess.run(
            ["sh", str(SCRIPT), command],
            env={**self.settings, **settings},
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )

    def start(self, **settings: str) -> subprocess.Popen[str]:
        """Start the script as the pod does; end it."""
        return subprocess.Popen(
            ["sh", str(SCRIPT), "run"],
            env={**self.settings, "APPLIED_FILE": str(self.applied), **settings},
            stdout=subprocess.PIPE,
            text=True,
        )

    def hosts_toml(self, registry: str) -> Path:
        """Return the file of a registry."""
        return self.hosts / registry / "hosts.toml"

    def written(self) -> list[str]:
        """Return the registries that have a file of ours."""
        files = self.hosts.glob("*/hosts.toml")
        return sorted(file.parent.name for file in files if file.read_text().startswith(MARK))

    def state(self) -> dict[str, tuple[str, int, bytes]]:
        """Return kind, mode and content of everything below the folder, hidden things included."""
        return {str(path.relative_to(self.directory)): _state(path) for path in sorted(self.directory.rglob("*"))}


def _state(path: Path) -> tuple[str, int, bytes]:
    mode = path.lstat().st_mode
    if path.is_symlink():
        return "link", mode, os.fsencode(path.readlink())
    return ("folder", mode, b"") if path.is_dir() else ("file", mode, path.read_bytes())
