"""buildah: pulls, and builds on a base that it pulls."""

import json
from pathlib import Path
from subprocess import CompletedProcess

from lab.clients import registries_conf
from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Expected, Login, Way, split_reference
from lab.image import Image


class BuildahClient:
    """Its storage is podman's form with the overlay driver."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self._way = way
        self._cell = Cell(directory, way, root)
        registries_conf.configure(self._cell)
        self.version = self._cell.expect("buildah", "--version").partition(" (")[0].strip()

    def login(self, registry: str, login: Login) -> CompletedProcess[str]:
        """Run `buildah login`."""
        registries_conf.lead(self._cell, self._way, registry)
        command = ["buildah", "login", "--username", login.username, "--password-stdin", registry]
        return self._cell.run(*command, environment=self._way.environment, text_in=login.password)

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Run `buildah pull`."""
        registries_conf.lead(self._cell, self._way, split_reference(reference)[0])
        credentials = ["--creds", login.pair] if login else []
        return self._cell.run(
            "buildah", "pull", "--platform", "linux/amd64", *credentials, reference, environment=self._way.environment
        )

    def build(self, base: str) -> CompletedProcess[str]:
        """Run `buildah build` with a new layer on `base`, without a command that runs."""
        registries_conf.lead(self._cell, self._way, split_reference(base)[0])
        context = self._cell.directory / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /\n")
        command = ["buildah", "build", "--isolation", "chroot", "--platform", "linux/amd64", "--tag", "built"]
        return self._cell.run(*command, str(context), environment=self._way.environment)

    def check(self, reference: str, image: Image) -> None:
        """Ask buildah; it hashed the layers when it unpacked them."""
        expected = Expected.of(image)
        found = json.loads(self._cell.expect("buildah", "inspect", "--type", "image", reference))
        assert f"sha256:{found['FromImageID']}" == expected.config
        assert found["FromImageDigest"] in {image.digest, expected.manifest}
        assert tuple(found["OCIv1"]["rootfs"]["diff_ids"]) == expected.diff_ids

    def close(self) -> None:
        """Remove its files."""
        self._cell.close()
