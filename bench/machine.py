"""Where and with what a run was made."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from bench import ROOT

_PACKAGES = ("nginx-light", "docker-registry", "squid-openssl", "hey", "skopeo", "curl")
_DISTRIBUTIONS = ("mitmproxy", "aiohttp", "diskcache", "cryptography", "pyopenssl")
_LIMIT_S = 20


def describe() -> Mapping[str, str]:
    """Return the machine, its load at this moment, and the commit."""
    memory_kib = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    )
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory_kib / (1 << 20):.0f} GiB",
        "system": f"{_debian()}, Linux {platform.release()}",
        "load before the run": f"{os.getloadavg()[0]:.2f}",
        "commit": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "unknown",
    }


def versions() -> Mapping[str, str]:
    """Return the versions of all programs and libraries that matter."""
    found = {"Python": sys.version.split()[0], "OpenSSL of ours and mitmdump": backend.openssl_version_text()}
    found |= {name: version(name) for name in _DISTRIBUTIONS}
    return found | {name: _output(["dpkg-query", "-W", "-f", "${Version}", name]) or "unknown" for name in _PACKAGES}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _debian() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _output(command: list[str]) -> str:
    completed = subprocess.run(  # noqa: S603 - git and dpkg-query
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )
    return completed.stdout.strip() if completed.returncode == 0 else ""
