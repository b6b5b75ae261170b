"""oras: copies an image with all its platforms to a layout."""

from pathlib import Path
from subprocess import CompletedProcess

from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Login, Way
from lab.image import Image
from lab.skopeo import hash_files


class OrasClient:
    """It has no mirrors, so it knows the proxy door only."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self._way = way
        self._cell = Cell(directory, way, root)
        self.version = "oras " + self._cell.expect("oras", "version").split()[1]
        self._pulled: dict[str, Path] = {}

    def login(self, registry: str, login: Login) -> CompletedProcess[str]:
        """Run `oras login`."""
        command = ["oras", "login", "--username", login.username, "--password-stdin", registry]
        return self._cell.run(*command, environment=self._way.environment, text_in=login.password)

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Run `oras cp`."""
        target = self._cell.directory / f"pulled-{len(self._pulled)}"
        self._pulled[reference] = target
        credentials = ["--from-username", login.username, "--from-password", login.password] if login else []
        command = ["oras", "cp", *credentials, "--to-oci-layout", reference, f"{target}:image"]
        return self._cell.run(*command, environment=self._way.environment)

    def check(self, reference: str, image: Image) -> None:
        """Hash what is in the layout."""
        found = {f"sha256:{digest}" for digest in hash_files(self._pulled[reference] / "blobs").values()}
        assert {*image.manifests, *image.blobs} <= found

    def close(self) -> None:
        """Remove its files."""
        self._cell.close()
