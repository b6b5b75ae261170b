"""The set-up of the other clients, of other systems, and what goes wrong halfway."""

import shutil
import tomllib

import pytest
import yaml

from lab.client_setup import ClientSetup
from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DROP_IN = "etc/systemd/system/docker.service.d/registry-proxy.conf"


@pytest.mark.parametrize("client", ["crio", "k3s", "rke2", "minikube"])
@pytest.mark.parametrize("door", ["mirror", "proxy"])
def test_a_round_leaves_nothing(root: ThrowawayRoot, mirror: str, client: str, door: str) -> None:
    """Set up, once more, undo: by each door."""
    root.write("etc/systemd/system/k3s.service", "[Service]\n")
    root.write("etc/systemd/system/k3s.service.env", "K3S_TOKEN=x\n", mode=0o600)
    # minikube's nodes cannot reach loopback, and its script says so in the end.
    by_name = mirror.replace("127.0.0.1", "proxy.lab.test")
    root.write("etc/hosts", "127.0.0.1 localhost proxy.lab.test\n")
    script = root.run("curl", "-fsS", f"{by_name}/setup/{client}?door={door}").stdout
    before = root.tree()
    done = [root.run("sh", "-s", "--", "--yes", script=script) for _ in range(2)]
    changed = root.tree()
    undone = root.run("sh", "-s", "--", "--yes", "--uninstall", script=script)

    assert [each.returncode for each in (*done, undone)] == [0, 0, 0], [(e.stdout, e.stderr) for e in done]
    assert "nothing to change" in done[1].stdout
    assert changed != before
    assert root.tree() == before


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("", {"*": None}),
        ("configs: {}", {"*": None}),
        ("configs:\n  x:\n    auth: {username: a}\n", {"*": None}),
        (
            'mirrors:\n    quay.io:\n        endpoint: ["https://q"]\nconfigs: {}\n',
            {"*": None, "quay.io": ["https://q"]},
        ),
    ],
)
def test_k3s_keeps_the_mirrors_of_others(
    root: ThrowawayRoot, setup: ClientSetup, mirror: str, theirs: str, expected: dict[str, list[str] | None]
) -> None:
    """The star is put among them, however they are indented."""
    if theirs:
        root.write("etc/rancher/k3s/registries.yaml", theirs, mode=0o600)
    setup.install("k3s")
    merged = yaml.safe_load(root.read("etc/rancher/k3s/registries.yaml"))
    found = {name: entry["endpoint"] for name, entry in merged["mirrors"].items()}

    assert found == {name: endpoint or [mirror] for name, endpoint in expected.items()}
    assert ("configs" in merged) == ("configs" in theirs)


def test_k3s_with_a_star_of_somebody_else_is_left_alone(root: ThrowawayRoot, setup: ClientSetup, mirror: str) -> None:
    """Two stars would be no YAML; what to add is said."""
    root.write("etc/rancher/k3s/registries.yaml", 'mirrors:\n  "*":\n    endpoint: ["https://x"]\n')
    before = root.tree()
    done = setup.run("k3s", "--yes")

    assert (done.returncode, f"add {mirror}" in done.stderr) == (1, True)
    assert root.tree() == before


@pytest.mark.usefixtures("mirror")
def test_a_builder_of_buildx_is_made_and_removed(root: ThrowawayRoot, proxy: Proxy) -> None:
    """With the configuration; docker is one that writes down what it is asked for."""
    root.hide("docker")
    root.write("usr/local/bin/docker", '#!/bin/sh\necho "$*" >>/run/docker-called\n', mode=0o755)
    root.write("etc/hosts", "127.0.0.1 localhost proxy.lab.test\n")
    script = root.run("curl", "-fsS", f"http://proxy.lab.test:{proxy.address.port}/setup/buildkit").stdout
    before = root.tree()
    done = root.run("sh", "-s", "--", "--yes", script=script)
    assert done.returncode == 0, done.stderr
    settings = tomllib.loads(root.read("root/.config/registry-proxy/buildkitd.toml"))["registry"]
    undone = root.run("sh", "-s", "--", "--yes", "--uninstall", script=script)

    host = f"proxy.lab.test:{proxy.address.port}"
    assert settings["docker.io"] == {"mirrors": [f"{host}/docker.io"]}
    assert settings[host] == {"http": True}
    assert "--driver docker-container --config /root/.config/registry-proxy" in root.read("run/docker-called")
    assert undone.returncode == 0
    assert root.tree() == before


@pytest.mark.parametrize(
    ("folder", "tool"),
    [("etc/pki/ca-trust/source/anchors", "update-ca-trust"), ("etc/pki/trust/anchors", "update-ca-certificates")],
)
def test_red_hat_and_suse_keep_it_elsewhere(root: ThrowawayRoot, setup: ClientSetup, folder: str, tool: str) -> None:
    """Their folder gets the CA, and their tool is called."""
    (root.path / folder).mkdir(parents=True)
    root.hide(tool)
    root.write(f"usr/local/bin/{tool}", f'#!/bin/sh\necho {tool} "$*" >>/run/tool-called\n', mode=0o755)
    # The tool does not do its work here, so the check in the end fails, and says how to go back.
    done = setup.run("docker?door=proxy", "--yes")
    assert "--uninstall takes everything back" in done.stderr
    assert (root.path / folder / "registry-proxy-docker.crt").exists()
    setup.run("docker?door=proxy", "--yes", "--uninstall")

    assert list((root.path / folder).iterdir()) == []
    assert [line.split()[0] for line in root.read("run/tool-called").splitlines()] == [tool] * 2


def test_a_host_without_systemd_has_it_in_its_services_file(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """OpenRC, as on Alpine: what the file says besides stays."""
    for gone in ("etc/systemd", "run/systemd"):
        shutil.rmtree(root.path / gone)
    root.write("etc/conf.d/docker", 'DOCKER_OPTS="-D"\n')
    root.write("usr/local/bin/rc-service", '#!/bin/sh\necho "$*" >>/run/rc-called\n', mode=0o755)
    before = root.tree()
    done = setup.run("docker?door=proxy", "--yes")
    environment = root.run("sh", "-c", ". /etc/conf.d/docker; echo $DOCKER_OPTS; env").stdout
    setup.run("docker?door=proxy", "--yes", "--uninstall")

    assert done.returncode == 0, done.stderr
    assert environment.startswith("-D\n")
    assert "\nHTTPS_PROXY=http://127.0.0.1:" in environment
    assert root.read("run/rc-called").splitlines() == ["docker status", "docker restart"] * 2
    assert root.tree() == before


def test_a_run_that_was_cut_short_is_finished_by_the_next(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """A restart that failed is done again, although no file is to be changed any more."""
    good = root.read("usr/local/bin/systemctl")
    root.write("usr/local/bin/systemctl", "#!/bin/sh\nexit 1\n", mode=0o755)
    failed = setup.run("docker?door=proxy", "--yes")
    root.write("usr/local/bin/systemctl", good, mode=0o755)
    again = setup.run("docker?door=proxy", "--yes")

    assert (failed.returncode, again.returncode) == (1, 0)
    assert root.systemctl_calls() == ["daemon-reload", "try-restart docker.service"]
    assert "nothing to change" in setup.run("docker?door=proxy", "--yes").stdout


def test_what_somebody_changed_since_is_not_thrown_away(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """Undo leaves such a file, names it and fails; when it is as it was before, undo ends well."""
    setup.run("docker?door=proxy", "--yes")
    root.write(DROP_IN, "[Service]\n# mine\n")
    undone = setup.run("docker?door=proxy", "--yes", "--uninstall")
    assert (undone.returncode, DROP_IN in undone.stderr) == (1, True)
    assert "# mine" in root.read(DROP_IN)

    (root.path / DROP_IN).unlink()
    setup.uninstall("docker?door=proxy")
    assert not (root.path / "var/lib/registry-proxy-setup").exists()
