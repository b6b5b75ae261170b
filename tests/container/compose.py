"""The compose files of docs/deploy, run by podman-compose, and a registry image to run them with."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.podman import Container, Podman
from lab.programs import find_program

REGISTRY_IMAGE = "localhost/registry-test:1"

_REGISTRY_CONTAINERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY docker-registry /bin/registry
COPY entrypoint.sh /entrypoint.sh
VOLUME ["/var/lib/registry"]
ENTRYPOINT ["/entrypoint.sh"]
CMD ["/etc/docker/registry/config.yml"]
"""
_REGISTRY_ENTRYPOINT = """\
#!/bin/sh
case "$1" in
    *.yml) set -- registry serve "$@" ;;
esac
exec "$@"
"""


def build_registry(podman: Podman, base: str, directory: Path) -> str:
    """Build what stands in for docker.io/library/registry:2, Debian's docker-registry 2.8, and return its name.

    It starts as that image does: a file is served, anything else is a command.
    """
    directory.mkdir()
    shutil.copy(find_program("docker-registry"), directory)
    (directory / "Containerfile").write_text(_REGISTRY_CONTAINERFILE)
    (directory / "entrypoint.sh").write_text(_REGISTRY_ENTRYPOINT)
    (directory / "entrypoint.sh").chmod(0o755)
    podman.build(directory, directory / "Containerfile", REGISTRY_IMAGE, options=["--build-arg", f"BASE_IMAGE={base}"])
    return REGISTRY_IMAGE


class Compose:
    """One project of podman-compose, made of a file of docs/deploy and a file with what the test adds."""

    def __init__(self, podman: Podman, file: Path, settings: Mapping[str, str], addition: Path | None = None) -> None:
        self._podman = podman
        self._directory = file.parent
        files = [file, *([addition] if addition else [])]
        self._command = [find_program("podman-compose"), *(word for path in files for word in ("--file", str(path)))]
        self._environment = {**podman.environment, **settings}

    @property
    def command(self) -> str:
        """The program with its files, as a script would call it."""
        return " ".join(self._command)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the program, and a script that calls it, must find in the environment."""
        return self._environment

    def run(self, *arguments: str) -> str:
        """Run one command of podman-compose and return what it prints."""
        completed = self._podman.execute(
            [*self._command, *arguments], cwd=self._directory, environment=self._environment
        )
        return completed.stdout + completed.stderr

    def container(self, service: str) -> Container:
        """Return the one container of a service."""
        found = self._podman.run("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.service={service}")
        (name,) = found.stdout.split()
        return Container(self._podman, name)
