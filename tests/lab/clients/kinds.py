"""The clients by name."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from lab.clients.buildah import BuildahClient
from lab.clients.cell import MACHINE
from lab.clients.client import Client, Way
from lab.clients.containerd import ContainerdClient
from lab.clients.cri import CriClient
from lab.clients.dockerd import DockerClient
from lab.clients.oras import OrasClient
from lab.clients.podman import PodmanClient
from lab.clients.skopeo import SkopeoClient


class Kind(Protocol):
    """Makes a client of one kind."""

    def __call__(self, directory: Path, way: Way, root: Path = MACHINE) -> Client:
        """Return a client with an empty storage in the new folder `directory`, with the programs of `root`."""
        ...


KINDS: Mapping[str, Kind] = {
    "skopeo": SkopeoClient,
    "podman": PodmanClient,
    "dockerd": DockerClient,
    "dockerd-containerd-store": partial(DockerClient, containerd_store=True),
    "containerd": ContainerdClient,
    "cri": CriClient,
    "buildah": BuildahClient,
    "oras": OrasClient,
}
