"""Types of the fixtures that start clients, and what their tests say again and again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from lab.clients.cell import MACHINE
from lab.clients.client import Client, Door
from lab.lab import HUB
from lab.proxy import Proxy
from lab.registry import Registry

_EARLY = ("skopeo", "podman", "dockerd", "containerd")
_LATE = ("cri", "buildah")
"""The first is a containerd, too, and buildah pulls with the library that podman has: they may wait."""
CLIENTS = (*_EARLY, *(pytest.param(name, marks=pytest.mark.slow) for name in _LATE))
"""Those that this release of Debian has."""

LOGIN_CLIENTS = ("skopeo", "podman", "dockerd", pytest.param("buildah", marks=pytest.mark.slow))
"""Those that have a command to log in."""


def reference(registry: Registry, name: str) -> str:
    """Return how a client writes an image of a registry of the lab; Docker Hub has a name of its own for that."""
    host = "docker.io" if registry.name == HUB else registry.name
    return f"{host}/{name}:latest"


class StartClient(Protocol):
    """Starts a client of the test."""

    def __call__(self, kind: str, proxy: Proxy, *, door: Door = Door.PROXY, root: Path = MACHINE) -> Client:
        """Return a client with an empty storage that reaches registries through `proxy`."""
        ...


class StartShared(Protocol):
    """Starts a proxy that the tests of a module share."""

    def __call__(self, settings: Mapping[str, str] | None = None) -> Proxy:
        """Return a proxy with an empty cache."""
        ...
