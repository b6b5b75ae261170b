"""The set-up of podman, buildah and skopeo, run for real, and pulls by it."""

import tomllib

import pytest

from lab.client_setup import ClientSetup
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot

pytestmark = pytest.mark.e2e


@pytest.mark.usefixtures("mirror")
def test_each_registry_gets_its_mirror(
    root: ThrowawayRoot, setup: ClientSetup, lab: Lab, build_image: MakeImage
) -> None:
    """A pull works by a name that only the proxy can reach; an entry of somebody else is left alone."""
    theirs = '[[registry]]\nlocation = "other.lab.test"\nblocked = true\n'
    root.write("etc/containers/registries.conf.d/90-theirs.conf", theirs)
    lab.push(build_image(), "setup/podman")
    done = setup.run("podman", "--yes")
    tls = root.run("skopeo", "--insecure-policy", "copy", "docker://noauth.lab.test/setup/podman", "dir:/tmp/pulled")
    settings = tomllib.loads(root.read("etc/containers/registries.conf.d/50-registry-proxy-podman.conf"))
    prefixes = [registry["prefix"] for registry in settings["registry"]]

    assert tls.returncode == 0, tls.stderr
    assert "docker.io" in prefixes
    assert "other.lab.test" not in prefixes
    assert "90-theirs.conf has other.lab.test already" in done.stderr
    setup.uninstall("podman")
    setup.round("podman")


def test_a_user_sets_up_himself_alone(root: ThrowawayRoot, mirror: str) -> None:
    """Without root it is in his own folder."""
    script = root.run("curl", "-fsS", f"{mirror}/setup/podman").stdout
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/tmp/home")
    root.run("install", "-d", "-o", "nobody", "/tmp/home")
    done = root.run(*as_nobody, "sh", "-s", "--", "--yes", script=script)
    made = [str(file.relative_to(root.path)) for file in (root.path / "tmp/home").rglob("*.conf")]
    undone = root.run(*as_nobody, "sh", "-s", "--", "--yes", "--uninstall", script=script)

    assert (done.returncode, undone.returncode) == (0, 0), done.stderr + undone.stderr
    assert "tmp/home/.config/containers/registries.conf.d/50-registry-proxy-podman.conf" in made
    assert list((root.path / "tmp/home").iterdir()) == []


@pytest.mark.slow
def test_a_real_podman_pulls_through_the_proxy_door(
    root: ThrowawayRoot, setup: ClientSetup, lab: Lab, build_image: MakeImage
) -> None:
    """What the drop-in says is podman's environment, and the CA is trusted."""
    if not root.has("podman"):
        pytest.skip("podman is not installed here")
    lab.push(build_image(), "setup/engine")
    setup.run("podman?door=proxy", "--yes")
    pulled = root.run(
        *("podman", "--storage-driver=vfs", "pull", "--arch=amd64"),
        "noauth.lab.test/setup/engine:latest",
    )

    assert pulled.returncode == 0, pulled.stderr


@pytest.mark.slow
def test_the_proxy_door_is_in_the_engines_environment(root: ThrowawayRoot, setup: ClientSetup, proxy: Proxy) -> None:
    """containers.conf gives it to podman and buildah, not to what runs in containers."""
    setup.round("podman?door=proxy")
    setup.run("podman?door=proxy", "--yes")
    settings = tomllib.loads(root.read("etc/containers/containers.conf.d/registry-proxy.conf"))

    assert f"HTTPS_PROXY=http://{proxy.address}/" in settings["engine"]["env"]
