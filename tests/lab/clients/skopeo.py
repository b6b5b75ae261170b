"""skopeo on a small machine of its own; `lab.skopeo` is the plain one."""

from pathlib import Path
from subprocess import CompletedProcess

from lab.clients import registries_conf
from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Expected, Login, Way, split_reference
from lab.image import Image
from lab.skopeo import hash_files


class SkopeoClient:
    """Copies to a folder."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self._way = way
        self._cell = Cell(directory, way, root)
        registries_conf.configure(self._cell)
        self.version = self._cell.expect("skopeo", "--version").strip()
        self._pulled: dict[str, Path] = {}

    def login(self, registry: str, login: Login) -> CompletedProcess[str]:
        """Run `skopeo login`."""
        registries_conf.lead(self._cell, self._way, registry)
        command = ["skopeo", "login", "--username", login.username, "--password-stdin", registry]
        return self._cell.run(*command, environment=self._way.environment, text_in=login.password)

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Run `skopeo copy`; an index is reduced to the manifest of the platform."""
        registries_conf.lead(self._cell, self._way, split_reference(reference)[0])
        target = self._cell.directory / f"pulled-{len(self._pulled)}"
        self._pulled[reference] = target
        credentials = ["--src-creds", login.pair] if login else []
        platform = ["--override-os", "linux", "--override-arch", "amd64"]
        command = ["skopeo", *platform, "copy", *credentials, f"docker://{reference}", f"dir:{target}"]
        return self._cell.run(*command, environment=self._way.environment)

    def check(self, reference: str, image: Image) -> None:
        """Hash what is in the folder."""
        expected = Expected.of(image)
        found = {f"sha256:{digest}" for digest in hash_files(self._pulled[reference]).values()}
        assert {expected.manifest, *expected.blobs} <= found

    def close(self) -> None:
        """Remove its files."""
        self._cell.close()
