"""containerd with `ctr`, which up to containerd 1.7 asks registries in its own process."""

import hashlib
from pathlib import Path
from subprocess import CompletedProcess

from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Door, Expected, Login, Way
from lab.image import Image

_CONFIGURATION = """\
version = 2
root = "{directory}/root"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{directory}/containerd.sock"
"""
_HOSTS = """\
[host."http://{mirror}"]
capabilities = ["pull", "resolve"]
"""


class ContainerdClient:
    """Pulls with `ctr images pull`, which unpacks into a snapshot."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self._way = way
        self._cell = Cell(directory, way, root)
        self.version = "containerd " + self._cell.expect("containerd", "--version").split()[2]
        self._login: Login | None = None
        self._ctr = ["ctr", "--address", f"{directory}/containerd.sock", "images"]
        self._cell.write("/etc/containerd/config.toml", _CONFIGURATION.format(directory=directory))
        write_hosts(self._cell, way)
        self._cell.start("containerd", ["containerd"], directory / "containerd.sock", way.environment)

    def login(self, registry: str, login: Login) -> None:
        """Keep the login for the next pulls: `ctr` has no command that asks the registry."""
        del registry
        self._login = login

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Run `ctr images pull`."""
        login = login or self._login
        options = ["--user", login.pair] if login else []
        options += ["--hosts-dir", "/etc/containerd/certs.d"] if self._way.door is Door.MIRROR else []
        command = [*self._ctr, "pull", "--platform", "linux/amd64", *options, reference]
        return self._cell.run(*command, environment=self._way.environment)

    def check(self, reference: str, image: Image) -> None:
        """Ask for the image's digest and hash what is in the content store."""
        listed = self._cell.expect(*self._ctr, "list", f"name=={reference}").splitlines()[1].split()
        assert (listed[0], listed[2]) == (reference, image.digest)
        check_content(self._cell.directory / "root", image)

    def close(self) -> None:
        """End the daemon and remove its files."""
        self._cell.close()


def write_hosts(cell: Cell, way: Way) -> None:
    """Give the cell the configuration of a mirror for every registry; it counts where a client is told of it."""
    cell.write("/etc/containerd/certs.d/_default/hosts.toml", _HOSTS.format(mirror=way.address))


def check_content(root: Path, image: Image) -> None:
    """Hash what is in the content store of a containerd; AssertionError unless it is all of the image's platform."""
    expected = Expected.of(image)
    store = root / "io.containerd.content.v1.content/blobs/sha256"
    for digest in {image.digest, expected.manifest, *expected.blobs}:
        content = (store / digest.removeprefix("sha256:")).read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
