"""The secrets of a whole run, and where none of them may be: logs, error pages, and all that a proxy stores.

Passwords are known beforehand; tokens are recognised by their form, for every JSON web token begins alike.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.registry import GUEST, GUEST_PASSWORD, PASSWORD, USERNAME

_LARGEST_FILE_BYTES = 4 * 1024 * 1024
"""Larger files are layers, which come as they are from registries."""

_OF_TESTS = ("hunter2-Zq7", "changed-8Kd", GUEST_PASSWORD)
_LOGINS = ((USERNAME, PASSWORD), (GUEST, GUEST_PASSWORD), (USERNAME, "hunter2-Zq7"), ("bob", "hunter2-Zq7"))
_TOKEN = rb"eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}"
_OWN_TOKEN = rb"registry-proxy\.[A-Za-z0-9_-]{43}"


def _forms() -> Iterator[bytes]:
    """Give each secret in the forms in which it travels."""
    for username, password in _LOGINS:
        yield f"{username}:{password}".encode()
        yield base64.b64encode(f"{username}:{password}".encode()).rstrip(b"=")
    yield from (secret.encode() for secret in _OF_TESTS)


_SECRETS = re.compile(b"|".join([*(re.escape(form) for form in _forms()), _TOKEN, _OWN_TOKEN]))


def secrets_in(content: bytes) -> list[str]:
    """Return the secrets in a text, each shortened: a failing test tells them."""
    return sorted({match.group()[:12].decode() + "..." for match in _SECRETS.finditer(content)})


def files_with_secrets(directories: Iterable[Path]) -> list[str]:
    """Return the files below directories that hold a secret or are named by one."""
    return [
        f"{path}: {found}"
        for directory in directories
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and path.stat().st_size <= _LARGEST_FILE_BYTES
        and (found := secrets_in(path.read_bytes() + path.name.encode()))
    ]
