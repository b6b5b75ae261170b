"""podman on a small machine of its own; `lab.podman` is the engine that the tests of our image use."""

import json
from pathlib import Path
from subprocess import CompletedProcess

from lab.clients import registries_conf
from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Expected, Login, Way, split_reference
from lab.image import Image


class PodmanClient:
    """Pulls into a storage with the overlay driver, which unpacks the layers."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self._way = way
        self._cell = Cell(directory, way, root)
        registries_conf.configure(self._cell)
        self.version = self._cell.expect("podman", "--version").strip()

    def login(self, registry: str, login: Login) -> CompletedProcess[str]:
        """Run `podman login`."""
        registries_conf.lead(self._cell, self._way, registry)
        command = ["podman", "login", "--username", login.username, "--password-stdin", registry]
        return self._cell.run(*command, environment=self._way.environment, text_in=login.password)

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Run `podman pull`."""
        registries_conf.lead(self._cell, self._way, split_reference(reference)[0])
        credentials = ["--creds", login.pair] if login else []
        command = ["podman", "pull", "--platform", "linux/amd64", *credentials, reference]
        return self._cell.run(*command, environment=self._way.environment)

    def check(self, reference: str, image: Image) -> None:
        """Ask podman; it hashed the layers when it unpacked them."""
        expected = Expected.of(image)
        (found,) = json.loads(self._cell.expect("podman", "image", "inspect", reference))
        assert f"sha256:{found['Id']}" == expected.config
        assert found["Digest"] in {image.digest, expected.manifest}
        assert tuple(found["RootFS"]["Layers"]) == expected.diff_ids

    def close(self) -> None:
        """Remove its files."""
        self._cell.close()
