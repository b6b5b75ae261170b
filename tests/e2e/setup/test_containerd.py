"""The set-up of containerd, run for real: what containerd itself makes of it, and a pull."""

import tomllib
from pathlib import Path

import pytest

from lab.client_setup import ClientSetup
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.throwaway_root import ThrowawayRoot

pytestmark = pytest.mark.e2e

HOSTS_TOML = "etc/containerd/certs.d/_default/hosts.toml"


@pytest.fixture(autouse=True)
def _installed(root: ThrowawayRoot) -> None:
    if not root.has("containerd"):
        pytest.skip("containerd is not installed here")


@pytest.mark.parametrize(
    "config",
    [
        None,
        pytest.param(
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "native"\n',
            marks=pytest.mark.slow,
        ),
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "" # none\n[debug]\n',
    ],
)
def test_the_mirror_is_set_up_once_and_undone(
    root: ThrowawayRoot, setup: ClientSetup, mirror: str, config: str | None
) -> None:
    """The program itself reads config_path where it should be, and the mirror is in the file that it then reads."""
    if config is None:
        (root.path / "etc/containerd/config.toml").unlink(missing_ok=True)
    else:
        root.write("etc/containerd/config.toml", config)
    setup.install("containerd")
    dumped = tomllib.loads(root.run("containerd", "config", "dump").stdout)
    service = dumped["plugins"]["io.containerd.grpc.v1.cri"]
    hosts = tomllib.loads(root.read(HOSTS_TOML))

    assert service["registry"]["config_path"] == "/etc/containerd/certs.d"
    assert (service["containerd"]["snapshotter"] == "native") == ("native" in (config or ""))
    assert hosts["host"][mirror] == {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}
    setup.run("containerd", "--yes", "--uninstall")
    setup.round("containerd")


def test_mirrors_of_others_stay_behind_ours(root: ThrowawayRoot, setup: ClientSetup, mirror: str) -> None:
    """In the order in which containerd asks them; a registry with a folder of its own is told of."""
    theirs = '# theirs\nserver = "https://x"\n\n[host."https://other"]\n  capabilities = ["pull"]'
    root.write(HOSTS_TOML, theirs)
    root.write("etc/containerd/certs.d/quay.io/hosts.toml", "")
    done = setup.run("containerd", "--yes")
    merged = tomllib.loads(root.read(HOSTS_TOML))
    setup.run("containerd", "--yes", "--uninstall")

    assert list(merged["host"]) == [mirror, "https://other"]
    assert merged["server"] == "https://x"
    assert "quay.io/hosts.toml" in done.stderr
    assert root.read(HOSTS_TOML) == theirs


@pytest.mark.usefixtures("mirror")
def test_a_configuration_that_excludes_it_is_left_alone(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """Old mirrors cannot stand beside config_path: containerd would not start its image service."""
    old = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["https://x"]\n'
    root.write("etc/containerd/config.toml", old)
    before = root.tree()
    done = setup.run("containerd", "--yes")

    assert (done.returncode, "registry.mirrors" in done.stderr) == (1, True)
    assert root.tree() == before


@pytest.mark.slow
@pytest.mark.usefixtures("mirror")
def test_a_real_containerd_pulls_through_it(
    root: ThrowawayRoot, setup: ClientSetup, lab: Lab, build_image: MakeImage, tmp_path: Path
) -> None:
    """By a name that only the proxy can reach."""
    lab.push(build_image(), "setup/containerd")
    setup.install("containerd")
    root.start("containerd", log=tmp_path / "containerd.log")
    root.wait_for("run/containerd/containerd.sock")
    pulled = root.run(
        *("ctr", "content", "fetch", "--hosts-dir", "/etc/containerd/certs.d"),
        "noauth.lab.test/setup/containerd:latest",
    )

    assert pulled.returncode == 0, pulled.stderr + (tmp_path / "containerd.log").read_text()
