"""The set-up scripts, run for real in a throw-away copy of this machine's root: set up, once more, undo."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot, Tree, why_no_root

pytestmark = pytest.mark.e2e

DROP_IN = "etc/systemd/system/docker.service.d/registry-proxy.conf"
ANCHOR = "usr/local/share/ca-certificates/registry-proxy-docker.crt"
DAEMON_JSON = "etc/docker/daemon.json"
HOSTS_TOML = "etc/containerd/certs.d/_default/hosts.toml"

type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for this file: a set-up changes nothing of it."""
    assert lab.hub.address
    with lab.proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture
def root() -> Iterator[ThrowawayRoot]:
    """Yield a root whose trust store is as this machine's own tools make it."""
    reason = why_no_root()
    if reason is not None:
        pytest.skip(reason)
    with ThrowawayRoot() as throwaway:
        throwaway.write("etc/systemd/system/docker.service.d/keep.conf", "[Service]\n")
        yield throwaway


@pytest.fixture
def run(proxy: Proxy, root: ThrowawayRoot) -> Run:
    """Return what runs the script of `/setup/<path>` in the root, as `curl | sh` does, without a terminal."""

    def run_script(path: str, *options: str) -> subprocess.CompletedProcess[str]:
        answer = proxy.request("GET", f"/setup/{path}")
        assert answer.status == 200, answer.body
        return root.run("sh", "-s", "--", *options, script=answer.body.decode())

    return run_script


@pytest.fixture
def mirror(proxy: Proxy) -> str:
    """Return the address of the mirror door."""
    if proxy.request("GET", "/v2/").status != 200:
        pytest.skip("this proxy has no mirror door")
    return f"http://{proxy.address}"


def needs(root: ThrowawayRoot, program: str) -> None:
    """Skip where a client is not installed."""
    if root.run("which", program).returncode != 0:
        pytest.skip(f"{program} is not installed here")


def hide(root: ThrowawayRoot, program: str) -> None:
    """Let a program be missing in the root."""
    for directory in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"):
        (root.path / directory / program).unlink(missing_ok=True)


def check_round(root: ThrowawayRoot, run: Run, path: str) -> Tree:
    """Set up, again, undo, again; return the tree as it was when set up."""
    before = root.tree()
    first = run(path, "--yes")
    assert first.returncode == 0, first.stdout + first.stderr
    changed = root.tree()
    assert changed != before
    calls = root.systemctl_calls()

    second = run(path, "--yes")
    assert (second.returncode, "nothing to change" in second.stdout) == (0, True), second.stdout + second.stderr
    assert root.tree() == changed
    assert root.systemctl_calls() == calls

    undone = run(path, "--yes", "--uninstall")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert root.tree() == before
    assert "nothing to undo" in run(path, "--yes", "--uninstall").stdout
    return changed


class TestDocker:
    def test_the_proxy_door_is_set_up_once_and_undone(self, root: ThrowawayRoot, run: Run) -> None:
        """The service gets the proxy, the system trusts the CA, and in the end nothing is left."""
        tree = check_round(root, run, "docker?door=proxy&no_proxy=.corp,10.9.0.0/16")

        assert {DROP_IN, ANCHOR} <= tree.keys()
        assert root.systemctl_calls() == ["daemon-reload", "try-restart docker.service"] * 2

    def test_what_is_set_up_is_used(self, root: ThrowawayRoot, run: Run, proxy: Proxy) -> None:
        """A request through the proxy is trusted by the system's store, and the environment has what it must."""
        done = run("docker?door=proxy&no_proxy=.corp", "--yes")

        assert f"answers 401 through http://{proxy.address}, with a trusted certificate" in done.stdout
        assert root.read(ANCHOR).encode() == proxy.ca_file.read_bytes()
        drop_in = dict(re.findall(r'"(\w+)=([^"]*)"', root.read(DROP_IN)))
        assert drop_in["HTTPS_PROXY"] == f"http://{proxy.address}/"
        assert {"localhost", "127.0.0.0/8", "::1", ".corp"} <= set(drop_in["NO_PROXY"].split(","))
        without_store = root.run("env", "SSL_CERT_FILE=/dev/null", "curl", "-sS", "--proxy", drop_in["HTTPS_PROXY"],
                                 "--cacert", "/dev/null", "https://registry-1.docker.io/v2/")  # fmt: skip
        assert without_store.returncode != 0

    def test_another_no_proxy_and_another_proxy_are_respected(self, root: ThrowawayRoot, run: Run) -> None:
        """Exceptions that somebody made stay; a proxy that is there already is told of."""
        text = '[Service]\nEnvironment="HTTPS_PROXY=http://corp:8080" "NO_PROXY=.theirs,bad$(x)"\n'
        root.write("etc/systemd/system/docker.service.d/http-proxy.conf", text)
        done = run("docker?door=proxy", "--dry-run")

        assert "uses the proxy http://corp:8080 now" in done.stderr
        assert ",.theirs" in done.stdout
        assert "bad" not in done.stdout

    def test_the_wrong_ca_stops_it_before_any_change(self, root: ThrowawayRoot, run: Run, proxy: Proxy) -> None:
        """The fingerprint that was asked for is not that of the CA; the right one is accepted."""
        before = root.tree()
        done = run(f"docker?door=proxy&fp=sha256:{'ab' * 32}", "--yes")
        shown = proxy.request("GET", "/setup/").body.decode()
        (fingerprint,) = set(re.findall(r"sha256:[0-9a-f]{64}", shown))

        assert done.returncode == 1
        assert "nothing was changed" in done.stderr
        assert fingerprint in done.stderr
        assert root.tree() == before
        assert root.systemctl_calls() == []
        assert run(f"docker?door=proxy&fp={fingerprint}", "--dry-run").returncode == 0

    def test_without_consent_nothing_is_changed(self, root: ThrowawayRoot, run: Run, proxy: Proxy) -> None:
        """No terminal, a no at the terminal, and a look: each leaves everything as it is. A yes does not."""
        before = root.tree()
        unasked = run("docker?door=proxy")
        looked = run("docker?door=proxy", "--dry-run")
        assert (unasked.returncode, "--yes" in unasked.stderr) == (1, True)
        assert (looked.returncode, DROP_IN in looked.stdout) == (0, True)
        # `script` gives its command a terminal; what it reads itself is typed there.
        url = f"http://{proxy.address}/setup/docker?door=proxy"
        command = ["script", "--quiet", "--return", "--command", f"curl -fsS '{url}' | sh", "/dev/null"]
        refused = root.run(*command, script="n\n")
        assert "Do this? [y/N]" in refused.stdout
        assert root.tree() == before
        root.run(*command, script="y\n")
        assert DROP_IN in root.tree()

    def test_a_proxy_that_does_not_answer_stops_it(self, root: ThrowawayRoot, proxy: Proxy) -> None:
        """It is said before anything is changed."""
        script = proxy.request("GET", "/setup/docker?door=proxy").body.decode()
        before = root.tree()
        done = root.run("sh", "-s", "--", "--yes", script=script.replace(f":{proxy.address.port}", ":9"))

        assert (done.returncode, "the proxy does not answer at" in done.stderr) == (1, True)
        assert root.tree() == before

    @pytest.mark.parametrize("tool", ["python3", pytest.param("jq", marks=pytest.mark.slow)])
    def test_a_daemon_json_with_proxies_is_merged(self, root: ThrowawayRoot, run: Run, tool: str) -> None:
        """What it says elsewhere stays, also what was changed since; without such changes it comes back as it was."""
        if tool == "jq":
            hide(root, "python3")
        text = '{"data-root": "/srv", "proxies": {"http-proxy": "http://corp:1", "no-proxy": ".theirs"}}\n'
        root.write(DAEMON_JSON, text, mode=0o640)
        first = run("docker?door=proxy", "--yes")
        assert first.returncode == 0, first.stderr
        merged = json.loads(root.read(DAEMON_JSON))
        assert (merged["data-root"], merged["proxies"]["http-proxy"]) == ("/srv", "http://corp:1")
        assert merged["proxies"]["https-proxy"].startswith("http://127.0.0.1:")
        assert merged["proxies"]["no-proxy"].endswith(",.theirs")
        assert DROP_IN not in root.tree()

        root.write(DAEMON_JSON, json.dumps({**merged, "debug": True}), mode=0o640)
        run("docker?door=proxy", "--yes", "--uninstall")
        assert json.loads(root.read(DAEMON_JSON)) == {**json.loads(text), "debug": True}

        root.write(DAEMON_JSON, text, mode=0o640)
        before = root.tree()[DAEMON_JSON]
        run("docker?door=proxy", "--yes")
        run("docker?door=proxy", "--yes", "--uninstall")
        assert root.tree()[DAEMON_JSON] == before

    def test_what_cannot_be_merged_is_left_alone(self, root: ThrowawayRoot, run: Run) -> None:
        """No tool for JSON, or no JSON: it says so and stops, without harm."""
        root.write(DAEMON_JSON, '{"proxies": {"no-proxy": "a"},}\n')
        before = root.tree()
        broken = run("docker?door=proxy", "--yes")
        hide(root, "python3")
        hide(root, "jq")
        untouched = root.tree()
        toolless = run("docker?door=proxy", "--yes")

        assert (broken.returncode, toolless.returncode) == (1, 1)
        assert "nothing was changed" in broken.stderr
        assert "python3 or jq" in toolless.stderr
        assert root.tree() == untouched
        assert root.tree()[DAEMON_JSON] == before[DAEMON_JSON]

    @pytest.mark.slow
    @pytest.mark.parametrize("door", ["proxy", "mirror"])
    def test_a_real_daemon_pulls_through_it(
        self, root: ThrowawayRoot, run: Run, lab: Lab, build_image: MakeImage, tmp_path: Path, door: str
    ) -> None:
        """With the environment and the daemon.json that the script made; Docker Hub, which both doors have."""
        needs(root, "dockerd")
        lab.push(build_image(), f"library/setup-{door}")
        root.write(DAEMON_JSON, '{"bridge": "none", "iptables": false, "storage-driver": "vfs"}\n')
        done = run(f"docker?door={door}", "--yes")
        if door == "mirror" and "no mirror door" in done.stderr:
            pytest.skip("this proxy has no mirror door")
        drop_in = root.read(DROP_IN) if door == "proxy" else ""
        log = tmp_path / "dockerd.log"
        root.start("env", *re.findall(r'Environment="(.*)"', drop_in), "dockerd", log=log)
        root.wait_for("run/docker.sock")
        create = f"http://docker/images/create?fromImage=setup-{door}&tag=latest"
        pulled = root.run("curl", "-sS", "--unix-socket", "/run/docker.sock", "-X", "POST", create)

        assert "Downloaded newer image" in pulled.stdout, pulled.stdout + pulled.stderr + log.read_text()

    def test_the_mirror_door_and_back_to_the_proxy_door(self, root: ThrowawayRoot, run: Run, mirror: str) -> None:
        """A mirror for Docker Hub beside those that are there; the other door takes it back; undo restores all."""
        root.write(DAEMON_JSON, '{"registry-mirrors": ["https://other"]}\n')
        before = root.tree()
        run("docker?door=mirror", "--yes")
        assert json.loads(root.read(DAEMON_JSON))["registry-mirrors"] == [mirror, "https://other"]

        run("docker?door=proxy", "--yes")
        assert json.loads(root.read(DAEMON_JSON))["registry-mirrors"] == ["https://other"]
        assert DROP_IN in root.tree()

        run("docker", "--yes", "--uninstall")
        assert root.tree() == before


class TestContainerd:
    @pytest.fixture(autouse=True)
    def _installed(self, root: ThrowawayRoot) -> None:
        needs(root, "containerd")

    @pytest.mark.parametrize(
        "config",
        [
            None,
            pytest.param(
                'version = 2\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri".containerd]\n    snapshotter = "native"\n',
                marks=pytest.mark.slow,
            ),
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "" # none\n[debug]\n',
        ],
    )
    def test_the_mirror_is_set_up_once_and_undone(
        self, root: ThrowawayRoot, run: Run, mirror: str, config: str | None
    ) -> None:
        """The program itself reads config_path where it should be, and the mirror is in the file that it then reads."""
        if config is None:
            (root.path / "etc/containerd/config.toml").unlink(missing_ok=True)
        else:
            root.write("etc/containerd/config.toml", config)
        done = run("containerd", "--yes")
        assert done.returncode == 0, done.stderr
        dumped = tomllib.loads(root.run("containerd", "config", "dump").stdout)
        service = dumped["plugins"]["io.containerd.grpc.v1.cri"]
        hosts = tomllib.loads(root.read(HOSTS_TOML))

        assert service["registry"]["config_path"] == "/etc/containerd/certs.d"
        assert (service["containerd"]["snapshotter"] == "native") == ("native" in (config or ""))
        assert hosts["host"][mirror] == {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}
        run("containerd", "--yes", "--uninstall")
        check_round(root, run, "containerd")

    def test_mirrors_of_others_stay_behind_ours(self, root: ThrowawayRoot, run: Run, mirror: str) -> None:
        """In the order in which containerd asks them; a registry with a folder of its own is told of."""
        theirs = '# theirs\nserver = "https://x"\n\n[host."https://other"]\n  capabilities = ["pull"]\n'
        root.write(HOSTS_TOML, theirs)
        root.write("etc/containerd/certs.d/quay.io/hosts.toml", "")
        done = run("containerd", "--yes")
        merged = tomllib.loads(root.read(HOSTS_TOML))
        run("containerd", "--yes", "--uninstall")

        assert list(merged["host"]) == [mirror, "https://other"]
        assert merged["server"] == "https://x"
        assert "quay.io/hosts.toml" in done.stderr
        assert root.read(HOSTS_TOML) == theirs

    @pytest.mark.usefixtures("mirror")
    def test_a_configuration_that_excludes_it_is_left_alone(self, root: ThrowawayRoot, run: Run) -> None:
        """Old mirrors cannot stand beside config_path: containerd would not start its image service."""
        old = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["https://x"]\n'
        root.write("etc/containerd/config.toml", old)
        before = root.tree()
        done = run("containerd", "--yes")

        assert (done.returncode, "registry.mirrors" in done.stderr) == (1, True)
        assert root.tree() == before

    @pytest.mark.slow
    @pytest.mark.usefixtures("mirror")
    def test_a_real_containerd_pulls_through_it(
        self, root: ThrowawayRoot, run: Run, lab: Lab, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """By a name that only the proxy can reach."""
        lab.push(build_image(), "setup/containerd")
        assert run("containerd", "--yes").returncode == 0
        root.start("containerd", log=tmp_path / "containerd.log")
        root.wait_for("run/containerd/containerd.sock")
        pulled = root.run(
            *("ctr", "content", "fetch", "--hosts-dir", "/etc/containerd/certs.d"),
            "noauth.lab.test/setup/containerd:latest",
        )

        assert pulled.returncode == 0, pulled.stderr + (tmp_path / "containerd.log").read_text()


class TestPodman:
    @pytest.mark.usefixtures("mirror")
    def test_each_registry_gets_its_mirror(
        self, root: ThrowawayRoot, run: Run, lab: Lab, build_image: MakeImage
    ) -> None:
        """A pull works by a name that only the proxy can reach; an entry of somebody else is left alone."""
        theirs = '[[registry]]\nlocation = "other.lab.test"\nblocked = true\n'
        root.write("etc/containers/registries.conf.d/90-theirs.conf", theirs)
        lab.push(build_image(), "setup/podman")
        done = run("podman", "--yes")
        tls = root.run(
            "skopeo", "--insecure-policy", "copy", "docker://noauth.lab.test/setup/podman", "dir:/tmp/pulled"
        )
        settings = tomllib.loads(root.read("etc/containers/registries.conf.d/50-registry-proxy-podman.conf"))
        prefixes = [registry["prefix"] for registry in settings["registry"]]

        assert tls.returncode == 0, tls.stderr
        assert "docker.io" in prefixes
        assert "other.lab.test" not in prefixes
        assert "90-theirs.conf has other.lab.test already" in done.stderr
        assert run("podman", "--yes", "--uninstall").returncode == 0
        check_round(root, run, "podman")

    def test_a_user_sets_up_himself_alone(self, root: ThrowawayRoot, mirror: str) -> None:
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
        self, root: ThrowawayRoot, run: Run, lab: Lab, build_image: MakeImage
    ) -> None:
        """What the drop-in says is podman's environment, and the CA is trusted."""
        needs(root, "podman")
        lab.push(build_image(), "setup/engine")
        run("podman?door=proxy", "--yes")
        pulled = root.run(
            *("podman", "--storage-driver=vfs", "pull", "--arch=amd64"),
            "noauth.lab.test/setup/engine:latest",
        )

        assert pulled.returncode == 0, pulled.stderr

    @pytest.mark.slow
    def test_the_proxy_door_is_in_the_engines_environment(self, root: ThrowawayRoot, run: Run, proxy: Proxy) -> None:
        """containers.conf gives it to podman and buildah, not to what runs in containers."""
        check_round(root, run, "podman?door=proxy")
        run("podman?door=proxy", "--yes")
        settings = tomllib.loads(root.read("etc/containers/containers.conf.d/registry-proxy.conf"))

        assert f"HTTPS_PROXY=http://{proxy.address}/" in settings["engine"]["env"]


@pytest.mark.slow
class TestOthers:
    @pytest.mark.parametrize("client", ["crio", "k3s", "rke2", "minikube"])
    @pytest.mark.parametrize("door", ["mirror", "proxy"])
    def test_a_round_leaves_nothing(self, root: ThrowawayRoot, mirror: str, client: str, door: str) -> None:
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
            ("configs:\n  x:\n    auth: {username: a}\n", {"*": None}),
            (
                'mirrors:\n    quay.io:\n        endpoint: ["https://q"]\nconfigs: {}\n',
                {"*": None, "quay.io": ["https://q"]},
            ),
        ],
    )
    def test_k3s_keeps_the_mirrors_of_others(
        self, root: ThrowawayRoot, run: Run, mirror: str, theirs: str, expected: dict[str, list[str] | None]
    ) -> None:
        """The star is put among them, however they are indented."""
        if theirs:
            root.write("etc/rancher/k3s/registries.yaml", theirs, mode=0o600)
        done = run("k3s", "--yes")
        assert done.returncode == 0, done.stderr
        merged = yaml.safe_load(root.read("etc/rancher/k3s/registries.yaml"))
        found = {name: entry["endpoint"] for name, entry in merged["mirrors"].items()}

        assert found == {name: endpoint or [mirror] for name, endpoint in expected.items()}
        assert ("configs" in merged) == ("configs" in theirs)

    def test_k3s_with_a_star_of_somebody_else_is_left_alone(self, root: ThrowawayRoot, run: Run, mirror: str) -> None:
        """Two stars would be no YAML; what to add is said."""
        root.write("etc/rancher/k3s/registries.yaml", 'mirrors:\n  "*":\n    endpoint: ["https://x"]\n')
        before = root.tree()
        done = run("k3s", "--yes")

        assert (done.returncode, f"add {mirror}" in done.stderr) == (1, True)
        assert root.tree() == before

    @pytest.mark.usefixtures("mirror")
    def test_a_builder_of_buildx_is_made_and_removed(self, root: ThrowawayRoot, proxy: Proxy) -> None:
        """With the configuration; docker is one that writes down what it is asked for."""
        hide(root, "docker")
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
    def test_red_hat_and_suse_keep_it_elsewhere(self, root: ThrowawayRoot, run: Run, folder: str, tool: str) -> None:
        """Their folder gets the CA, and their tool is called."""
        (root.path / folder).mkdir(parents=True)
        hide(root, tool)
        root.write(f"usr/local/bin/{tool}", f'#!/bin/sh\necho {tool} "$*" >>/run/tool-called\n', mode=0o755)
        # The tool does not do its work here, so the check in the end fails, and says how to go back.
        done = run("docker?door=proxy", "--yes")
        assert "--uninstall takes everything back" in done.stderr
        assert (root.path / folder / "registry-proxy-docker.crt").exists()
        run("docker?door=proxy", "--yes", "--uninstall")

        assert list((root.path / folder).iterdir()) == []
        assert [line.split()[0] for line in root.read("run/tool-called").splitlines()] == [tool] * 2

    def test_a_host_without_systemd_has_it_in_its_services_file(self, root: ThrowawayRoot, run: Run) -> None:
        """OpenRC, as on Alpine: what the file says besides stays."""
        for gone in ("etc/systemd", "run/systemd"):
            shutil.rmtree(root.path / gone)
        root.write("etc/conf.d/docker", 'DOCKER_OPTS="-D"\n')
        root.write("usr/local/bin/rc-service", '#!/bin/sh\necho "$*" >>/run/rc-called\n', mode=0o755)
        before = root.tree()
        done = run("docker?door=proxy", "--yes")
        environment = root.run("sh", "-c", ". /etc/conf.d/docker; echo $DOCKER_OPTS; env").stdout
        run("docker?door=proxy", "--yes", "--uninstall")

        assert done.returncode == 0, done.stderr
        assert environment.startswith("-D\n")
        assert "\nHTTPS_PROXY=http://127.0.0.1:" in environment
        assert root.read("run/rc-called").splitlines() == ["docker status", "docker restart"] * 2
        assert root.tree() == before

    def test_a_run_that_was_cut_short_is_finished_by_the_next(self, root: ThrowawayRoot, run: Run) -> None:
        """A restart that failed is done again, although no file is to be changed any more."""
        good = root.read("usr/local/bin/systemctl")
        root.write("usr/local/bin/systemctl", "#!/bin/sh\nexit 1\n", mode=0o755)
        failed = run("docker?door=proxy", "--yes")
        root.write("usr/local/bin/systemctl", good, mode=0o755)
        again = run("docker?door=proxy", "--yes")

        assert (failed.returncode, again.returncode) == (1, 0)
        assert root.systemctl_calls() == ["daemon-reload", "try-restart docker.service"]
        assert "nothing to change" in run("docker?door=proxy", "--yes").stdout

    def test_what_somebody_changed_since_is_not_thrown_away(self, root: ThrowawayRoot, run: Run) -> None:
        """Undo leaves such a file, names it and fails; when it is as it was before, undo ends well."""
        run("docker?door=proxy", "--yes")
        root.write(DROP_IN, "[Service]\n# mine\n")
        undone = run("docker?door=proxy", "--yes", "--uninstall")
        assert (undone.returncode, DROP_IN in undone.stderr) == (1, True)
        assert "# mine" in root.read(DROP_IN)

        (root.path / DROP_IN).unlink()
        assert run("docker?door=proxy", "--yes", "--uninstall").returncode == 0
        assert not (root.path / "var/lib/registry-proxy-setup").exists()
