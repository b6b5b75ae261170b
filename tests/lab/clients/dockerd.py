"""dockerd, with a containerd that it starts itself, and the docker command line."""

import base64
import json
from pathlib import Path
from subprocess import CompletedProcess

from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Door, Expected, Login, Way, split_reference
from lab.image import Image

_HUB = "docker.io"
_HUB_LOGIN = "https://index.docker.io/v1/"
"""What logins for Docker Hub are kept under."""


class DockerClient:
    """The daemon pulls, so it has the proxy's variables. It makes no bridge and leaves iptables as they are."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE, *, containerd_store: bool = False) -> None:
        self._way = way
        self._cell = Cell(directory, way, root)
        self.version = self._cell.expect("dockerd", "--version").partition(",")[0]
        self._docker = ["docker", "--host", f"unix://{directory}/docker.sock", "--config", str(directory / "config")]
        self._keeps_manifests = containerd_store
        self._cell.write("/etc/docker/daemon.json", json.dumps(self._daemon_json(directory, containerd_store)))
        (directory / "config").mkdir()
        self._cell.start("dockerd", ["dockerd"], directory / "docker.sock", way.environment)

    def _daemon_json(self, directory: Path, containerd_store: bool) -> dict[str, object]:
        configuration: dict[str, object] = {
            "hosts": [f"unix://{directory}/docker.sock"],
            "data-root": str(directory / "data"),
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,
            "ip-masq": False,
        }
        if self._way.door is Door.MIRROR:
            configuration["registry-mirrors"] = [f"http://{self._way.address}"]
        if containerd_store:
            configuration["features"] = {"containerd-snapshotter": True}
        return configuration

    def login(self, registry: str, login: Login) -> CompletedProcess[str]:
        """Run `docker login`."""
        named = [] if registry == _HUB else [registry]
        command = [*self._docker, "login", "--username", login.username, "--password-stdin", *named]
        return self._cell.run(*command, text_in=login.password)

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Run `docker pull`."""
        if login is not None:
            self._remember(split_reference(reference)[0], login)
        return self._cell.run(*self._docker, "pull", "--platform", "linux/amd64", reference)

    def _remember(self, registry: str, login: Login) -> None:
        key = _HUB_LOGIN if registry == _HUB else registry
        auth = base64.b64encode(login.pair.encode()).decode()
        config = self._cell.directory / "config/config.json"
        config.write_text(json.dumps({"auths": {key: {"auth": auth}}}))

    def build(self, base: str) -> CompletedProcess[str]:
        """Run `docker build` by BuildKit with a new layer on `base`, without a command that runs."""
        context = self._cell.directory / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /\n")
        command = [*self._docker, "build", "--tag", "built", str(context)]
        return self._cell.run(*command, environment={"DOCKER_BUILDKIT": "1"})

    def check(self, reference: str, image: Image) -> None:
        """Ask the daemon; it hashed the layers when it unpacked them."""
        expected = Expected.of(image)
        (found,) = json.loads(self._cell.expect(*self._docker, "image", "inspect", reference))
        assert found["Id"] in ({image.digest, expected.manifest} if self._keeps_manifests else {expected.config})
        assert found["RepoDigests"][0].endswith(f"@{image.digest}")
        assert tuple(found["RootFS"]["Layers"]) == expected.diff_ids

    def close(self) -> None:
        """End the daemon and its containerd, and remove their files."""
        self._cell.close()
