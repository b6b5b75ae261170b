"""What every real client can do, and how it is led to registries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

from lab.addresses import Address
from lab.image import Image


class Door(Enum):
    """How a client asks our proxy."""

    PROXY = "proxy"
    """`HTTPS_PROXY` and our CA in the system's trust store."""
    MIRROR = "mirror"
    """A mirror of the client's own configuration, plain HTTP, without a CA."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a client reaches registries."""

    address: Address
    """Of our proxy."""
    ca_files: tuple[Path, ...]
    """What the system's trust store has besides: our CA, and the CA of those hosts that are tunnelled to."""
    door: Door = Door.PROXY
    files: Mapping[str, str] = field(default_factory=dict)
    """Further files of the client's machine, by absolute path."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead a program to the proxy; through the mirror door there are none."""
        return {"HTTPS_PROXY": f"http://{self.address}"} if self.door is Door.PROXY else {}


@dataclass(frozen=True, slots=True)
class Login:
    """Who a client says that it is."""

    username: str
    password: str

    @property
    def pair(self) -> str:
        """`user:password`, as command lines want it."""
        return f"{self.username}:{self.password}"


class Client(Protocol):
    """One client with an empty storage. References are `registry/name:tag`."""

    version: str

    def login(self, registry: str, login: Login) -> CompletedProcess[str] | None:
        """Run its login command, which asks the registry; None when it has no such command."""
        ...

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Pull linux/amd64, with the login of `login()`, or with `login`, which no registry has confirmed."""
        ...

    def check(self, reference: str, image: Image) -> None:
        """Raise AssertionError unless what it has pulled is `image`."""
        ...

    def close(self) -> None:
        """End its processes and remove its files."""
        ...


@dataclass(frozen=True, slots=True)
class Expected:
    """What a client must have after a pull for linux/amd64."""

    manifest: str
    config: str
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    """Digests of the unpacked layers."""

    @classmethod
    def of(cls, image: Image) -> "Expected":
        """Return it for an image, or an index whose first platform is amd64."""
        top = json.loads(image.read(image.digest))
        manifest = str(top["manifests"][0]["digest"]) if "manifests" in top else image.digest
        document = json.loads(image.read(manifest))
        config = str(document["config"]["digest"])
        return cls(
            manifest=manifest,
            config=config,
            layers=tuple(str(layer["digest"]) for layer in document["layers"]),
            diff_ids=tuple(json.loads(image.read(config))["rootfs"]["diff_ids"]),
        )

    @property
    def blobs(self) -> frozenset[str]:
        """Digests of configuration and layers."""
        return frozenset({self.config, *self.layers})


def split_reference(reference: str) -> tuple[str, str]:
    """Return registry and the rest of a full reference."""
    registry, _, rest = reference.partition("/")
    return registry, rest
