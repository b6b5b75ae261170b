"""A Docker configuration on the disk that others change while the proxy runs: a rotated login, a Kubernetes secret.

It is looked at when a credential is wanted, at most once a second, and read when it is another file than before. A
mounted secret is changed by the kubelet swapping the symbolic link `..data`, so the file behind all links is compared.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regproxy.policy.docker_config import FILE_NAMES, DockerConfig, DockerConfigError, parse_docker_config

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
"""How often the file is looked at, at most."""

SIZE_LIMIT_BYTES = 1024 * 1024
"""Kubernetes' own limit of a secret."""


class _Version(NamedTuple):
    device: int
    inode: int
    modified_ns: int
    size_bytes: int


class CredentialFile:
    """The logins of one file, or of a directory that has it under one of its usual names."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._next_look_s = float("-inf")
        self._version: _Version | None = None
        self._trouble = ""
        self._config = DockerConfig()

    def current(self) -> DockerConfig:
        """Return what the file says; what it said before if it cannot be read now, which is said once."""
        now_s = self._clock()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_INTERVAL_S
            self._look()
        return self._config

    def _look(self) -> None:
        path = self._file()
        try:
            status = path.stat()
            version = _Version(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            config = parse_docker_config(_read(path))
        except OSError as error:
            # Tried again at every look: rights and mounts change without the file changing.
            self._version = None
            self._complain(f"{path}: {error.strerror}")
        except DockerConfigError as error:
            self._version = version
            self._complain(f"{path}: {error}")
        else:
            self._version = version
            self._take(path, config)

    def _take(self, path: Path, config: DockerConfig) -> None:
        self._config, self._trouble = config, ""
        logger.info("AUTH_CONFIG_FILE=%s: read, logins: %d", path, len(config.credentials))
        for problem in config.problems:
            logger.warning("AUTH_CONFIG_FILE=%s: %s", path, problem)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            logger.warning("AUTH_CONFIG_FILE=%s; the logins read before are kept", trouble)

    def _file(self) -> Path:
        if not self._path.is_dir():
            return self._path
        return next((found for name in FILE_NAMES if (found := self._path / name).exists()), self._path / FILE_NAMES[0])


def _read(path: Path) -> str:
    """Return the file's text. Raises OSError and DockerConfigError."""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        content = file.read(SIZE_LIMIT_BYTES + 1)
    if len(content) > SIZE_LIMIT_BYTES:
        raise DockerConfigError(f"larger than {SIZE_LIMIT_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DockerConfigError("not UTF-8 text") from None
