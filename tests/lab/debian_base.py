"""A stand-in for python:3.13-slim where no public registry can be reached: Debian trixie, whose Python is 3.13.

Made once by debootstrap from the mirror that apt uses here, and kept under `var/`. It differs from the real base:
Python is Debian's and at /usr/bin, and the packages are Debian's minimal set, not the slimmed ones of the real one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab.programs import find_program

SUITE = "trixie"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
UNNEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")
"""What the official slim images leave out, too."""

_LIMIT_S = 400.0


class UnavailableError(Exception):
    """The base or the packages cannot be had on this machine; the text says why."""


def base_archive(directory: Path) -> Path:
    """Return the root file system as a tar file, made if it is not in `directory` yet. Raises UnavailableError."""
    archive = directory / f"base-{SUITE}-{_key(' '.join((*PACKAGES, *UNNEEDED)))}.tar"
    if archive.exists():
        return archive
    directory.mkdir(parents=True, exist_ok=True)
    root, unfinished = directory / f"root.{os.getpid()}", archive.with_suffix(f".{os.getpid()}")
    try:
        included = f"--include={','.join(PACKAGES)}"
        _run([find_program("debootstrap"), "--variant=minbase", included, SUITE, str(root), _mirror()])
        excluded = [f"--exclude=./{path}/*" for path in UNNEEDED]
        _run(["tar", "--create", "--file", str(unfinished), "--directory", str(root), *excluded, "."])
        unfinished.rename(archive)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
    return archive


def wheels(constraints: Path, directory: Path) -> Path:
    """Return a folder with the wheels of `constraints` for Python 3.13. Raises UnavailableError.

    pip finds them by this machine's own configuration, so that the build inside the container needs none.
    """
    folder = directory / f"wheels-{_key(constraints.read_text())}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(f".{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wanted = ["--only-binary", ":all:", "--python-version", "3.13", "--require-hashes", "-r", str(constraints)]
    try:
        _run([*pip, *wanted, "--dest", str(unfinished)])
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _mirror() -> str:
    """Return the first mirror of Debian itself that apt is set up with."""
    fields = "$(CREATED_BY) $(ORIGIN) $(LABEL) $(SITE)"
    listed = _run(["apt-get", "indextargets", "--format", fields])
    for line in listed.splitlines():
        words = line.split()
        if words[:3] == ["Packages", "Debian", "Debian"]:
            return words[3]
    raise UnavailableError("apt has no Debian mirror here: debootstrap has nowhere to load from")


def _run(command: list[str]) -> str:
    try:
        completed = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} needed more than {_LIMIT_S} s") from error
    if completed.returncode != 0:
        last = (completed.stderr or completed.stdout).strip().splitlines()[-3:]
        raise UnavailableError(f"{' '.join(command[:5])} ...: exit code {completed.returncode}: {' / '.join(last)}")
    return completed.stdout


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
