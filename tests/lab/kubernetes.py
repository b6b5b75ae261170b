"""What renders and checks manifests without a cluster: kustomize (in kubectl), helm, and the schemas of Kubernetes.

`scripts/kubernetes-tools` installs them. helm and kubectl are programs for amd64; elsewhere those in PATH are taken.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.programs import LabError

type Manifest = Mapping[str, Any]

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "config" / "kubernetes"
CHART = ROOT / "config" / "helm" / "registry-proxy"

_TOOLS = ROOT / "var" / "kubernetes-tools"
_LIMIT_S = 60.0


def tool(name: str) -> str:
    """Return the path of helm or kubectl. Skips where there is none for this machine; LabError if it is missing."""
    pinned = _TOOLS / "bin" / name
    if platform.machine() == "x86_64":
        if not pinned.exists():
            raise LabError(f"{name} is not installed: run scripts/kubernetes-tools")
        return str(pinned)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not in PATH; the one of scripts/kubernetes-tools is for amd64")
    return found


def run_tool(name: str, *arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm or kubectl without a cluster and without the user's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home or "/nonexistent"), "KUBECONFIG": "/dev/null"}
    return subprocess.run(
        [tool(name), *arguments],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


def kustomize(directory: Path) -> tuple[Manifest, ...]:
    """Return what a kustomization makes; LabError with its message if it cannot be made."""
    return _manifests(run_tool("kubectl", "kustomize", str(directory)))


def helm(*arguments: str, release: str = "registry-proxy", namespace: str = "registry-proxy") -> tuple[Manifest, ...]:
    """Return what the chart makes with these arguments; LabError with its message if it cannot be made."""
    return _manifests(run_tool("helm", "template", release, str(CHART), "--namespace", namespace, *arguments))


def _manifests(completed: subprocess.CompletedProcess[str]) -> tuple[Manifest, ...]:
    if completed.returncode != 0:
        raise LabError(completed.stderr)
    return tuple(manifest for manifest in yaml.safe_load_all(completed.stdout) if manifest)


def schema_problems(renderings: Mapping[str, Sequence[Manifest]], version: str, directory: Path) -> str:
    """Return what Kubernetes of this version would not accept, fields it does not know included; empty if nothing.

    Files are named after the keys, so that a problem says where it is.
    """
    packages = _TOOLS / "python"
    if not packages.is_dir():
        raise LabError("kubernetes-validate is not installed: run scripts/kubernetes-tools")
    command = [sys.executable, "-m", "kubernetes_validate", "-k", version, "--strict", "--quiet"]
    for name, manifests in renderings.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump_all(manifests))
        command.append(str(directory / f"{name}.yaml"))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or "refused without a word"


def named(manifests: Sequence[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the one manifest of a kind, or the one of it with this name."""
    found = [one for one in of_kind(manifests, kind) if name in {None, one["metadata"]["name"]}]
    (manifest,) = found
    return manifest


def of_kind(manifests: Sequence[Manifest], kind: str) -> Iterator[Manifest]:
    """Yield the manifests of a kind."""
    yield from (manifest for manifest in manifests if manifest["kind"] == kind)
