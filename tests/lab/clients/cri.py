"""containerd as Kubernetes uses it: the kubelet's call `PullImage` of the Container Runtime Interface."""

import time
from pathlib import Path
from subprocess import CompletedProcess

from lab.clients.cell import MACHINE, Cell
from lab.clients.client import Door, Expected, Login, Way
from lab.clients.containerd import check_content, write_hosts
from lab.clients.grpc import call, text_field
from lab.image import Image
from lab.programs import LabError

_START_LIMIT_S = 30.0
_POLL_S = 0.02

_CONFIGURATION = """\
version = 2
root = "{directory}/root"
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{hosts}"
"""
_HOSTS = "/etc/containerd/certs.d"
_LIST = "/runtime.v1.ImageService/ListImages"
_PULL = "/runtime.v1.ImageService/PullImage"


class CriClient:
    """The daemon pulls, so it has the proxy's variables."""

    def __init__(self, directory: Path, way: Way, root: Path = MACHINE) -> None:
        self._cell = Cell(directory, way, root)
        self.version = "CRI of containerd " + self._cell.expect("containerd", "--version").split()[2]
        self._login: Login | None = None
        self._pulled: dict[str, str] = {}
        self._socket = directory / "containerd.sock"
        hosts = _HOSTS if way.door is Door.MIRROR else ""
        write_hosts(self._cell, way)
        self._cell.write("/etc/containerd/config.toml", _CONFIGURATION.format(directory=directory, hosts=hosts))
        self._cell.start("containerd", ["containerd"], self._socket, way.environment)
        self._wait_until_initialized()

    def _wait_until_initialized(self) -> None:
        """Wait for the service, which refuses calls for a moment after the socket is there."""
        deadline_s = time.monotonic() + _START_LIMIT_S
        while (answer := call(self._socket, _LIST, b"")).status != 0:
            if time.monotonic() > deadline_s:
                raise LabError(f"containerd's CRI does not start: {answer.reason}\n{self._cell.log_tail()}")
            time.sleep(_POLL_S)

    def login(self, registry: str, login: Login) -> None:
        """Keep the login for the next pulls: the kubelet sends what is in `imagePullSecrets` with each."""
        del registry
        self._login = login

    def pull(self, reference: str, login: Login | None = None) -> CompletedProcess[str]:
        """Call `PullImage`; the exit code is the call's status."""
        request = text_field(1, text_field(1, reference))
        login = login or self._login
        if login is not None:
            request += text_field(2, text_field(1, login.username) + text_field(2, login.password))
        answer = call(self._socket, _PULL, request)
        self._pulled[reference] = answer.text()
        return CompletedProcess([_PULL, reference], answer.status, answer.text(), answer.reason)

    def check(self, reference: str, image: Image) -> None:
        """Compare the image's id, which the call returned, and hash what is in the content store."""
        assert self._pulled[reference] == Expected.of(image).config
        check_content(self._cell.directory / "root", image)

    def close(self) -> None:
        """End the daemon and remove its files."""
        self._cell.close()
