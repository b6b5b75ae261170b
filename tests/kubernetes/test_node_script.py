"""The script on nodes: what it writes, what it leaves alone, and that it takes everything back."""

import os
import re
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubernetes.node import SCRIPT, Node

REGISTRIES = ["docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.k8s.io"]
FOREIGN = '# mine\nserver = "https://quay.io"\n'
KILL_AT_STEP = """\
#!/bin/sh
echo step >>"$COUNTER"
[ "$(wc -l <"$COUNTER")" != "$STEP" ] || { kill -KILL "$PPID"; exit 1; }
exec "$REAL" "$@"
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "containerd", {"PROXY_URL": "http://192.0.2.7:3128"})


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, "nothing happened"
        time.sleep(0.02)


def apply(node: Node, **settings: str) -> str:
    done = node.run("apply", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def put(file: Path, text: str = FOREIGN) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_shellcheck_finds_nothing() -> None:
    """It is a script for any POSIX shell."""
    done = subprocess.run(["shellcheck", "--shell=sh", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(SCRIPT, os.X_OK)


def test_each_registry_gets_the_proxy_and_itself(node: Node) -> None:
    """The proxy is asked first, for a second at most; then the registry, which Docker Hub has elsewhere."""
    told = apply(node)

    assert node.written() == REGISTRIES
    assert tomllib.loads(node.hosts_toml("docker.io").read_text()) == {
        "server": "https://registry-1.docker.io",
        "host": {"http://192.0.2.7:3128": {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}},
    }
    assert tomllib.loads(node.hosts_toml("quay.io").read_text())["server"] == "https://quay.io"
    assert told.splitlines()[0] == "node-mirrors: docker.io is pulled through http://192.0.2.7:3128"
    assert node.hosts_toml("quay.io").stat().st_mode & 0o777 == 0o644


def test_a_second_run_changes_nothing(node: Node) -> None:
    """Not even the time of a file."""
    apply(node)
    before = (node.state(), node.hosts_toml("quay.io").stat())
    apply(node)

    assert (node.state(), node.hosts_toml("quay.io").stat()) == before


def test_it_takes_everything_back(node: Node) -> None:
    """Also the folder that it had to make, and no more when it is told twice."""
    before = node.state()
    apply(node)
    assert node.state() != before
    for _ in range(2):
        assert node.run("restore").returncode == 0
        assert node.state() == before


def test_what_was_empty_stays(node: Node) -> None:
    """Folders that were there without files are used, and are there afterwards."""
    (node.hosts / "quay.io").mkdir(parents=True)
    before = node.state()
    apply(node)
    assert "quay.io" in node.written()
    node.run("restore")
    assert node.state() == before


def test_files_of_others_are_left_alone(node: Node) -> None:
    """A hosts.toml, and a folder with certificates, which a hosts.toml would put out of use."""
    put(node.hosts_toml("quay.io"))
    put(node.hosts / "ghcr.io" / "ca.crt", "a certificate")
    put(node.hosts / "registry.example.com" / "hosts.toml")
    before = node.state()
    told = apply(node)

    assert node.written() == ["docker.io", "gcr.io", "registry.k8s.io"]
    assert f"left alone: quay.io, as {node.hosts}/quay.io/hosts.toml is not ours" in told
    assert f"left alone: ghcr.io, as {node.hosts}/ghcr.io has files of others" in told
    node.run("restore")
    assert node.state() == before


def test_a_file_for_all_registries_is_for_ours_too(node: Node) -> None:
    """Where _default leads to a mirror already, a file for one registry would lead past it."""
    put(node.hosts / "_default" / "hosts.toml")
    told = apply(node)

    assert node.written() == []
    assert f"left alone: docker.io, as {node.hosts}/_default/hosts.toml is for it" in told
    assert apply(node, REPLACE_FOREIGN="true")
    assert node.written() == REGISTRIES


def test_files_of_others_are_kept_when_they_may_be_replaced(node: Node) -> None:
    """The very file comes back, or the link; a file that somebody wrote over ours meanwhile stays."""
    inode = put(node.hosts_toml("quay.io")).stat().st_ino
    put(node.directory / "elsewhere.toml")
    node.hosts_toml("ghcr.io").parent.mkdir()
    node.hosts_toml("ghcr.io").symlink_to(node.directory / "elsewhere.toml")
    before = node.state()
    for _ in range(2):
        apply(node, REPLACE_FOREIGN="true")
    assert node.written() == REGISTRIES
    assert (node.directory / "elsewhere.toml").read_text() == FOREIGN

    node.run("restore")
    assert node.state() == before
    assert node.hosts_toml("quay.io").stat().st_ino == inode

    apply(node, REPLACE_FOREIGN="true")
    node.hosts_toml("quay.io").unlink()
    put(node.hosts_toml("quay.io"), "# newer\n")
    assert "what was there before is" in node.run("restore").stdout
    assert node.hosts_toml("quay.io").read_text() == "# newer\n"


def test_a_registry_that_is_no_longer_wanted_is_given_back(node: Node) -> None:
    """So is one whose proxy has moved: the file says the new address."""
    apply(node)
    apply(node, REGISTRIES="quay.io", PROXY_URL="http://192.0.2.8:3128")

    assert node.written() == ["quay.io"]
    assert not (node.hosts / "docker.io").exists()
    assert '[host."http://192.0.2.8:3128"]' in node.hosts_toml("quay.io").read_text()


@pytest.mark.parametrize(
    "configuration",
    [
        "version = 2\n",
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = ""\n',
        "[plugins.'io.containerd.transfer.v1.local']\nconfig_path = '{hosts}'\n",
        "[plugins.'io.containerd.cri.v1.images'.registry.configs]\nconfig_path = '{hosts}'\n",
        "[plugins.'io.containerd.cri.v1.images'.registry]\n# config_path = '{hosts}'\n",
        "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{hosts}/other'\n",
        None,
    ],
)
def test_nothing_is_written_where_containerd_would_not_read_it(node: Node, configuration: str | None) -> None:
    """It says what to set in which file, and what to do if it is set elsewhere."""
    node.config.unlink()
    if configuration is not None:
        node.config.write_text(configuration.replace("{hosts}", str(node.hosts)))
    before = node.state()
    done = node.run("apply")

    assert done.returncode == 1
    assert f"containerd does not read {node.hosts}: nothing is written. In {node.config}" in done.stdout
    assert f'[plugins."io.containerd.grpc.v1.cri".registry] config_path = "{node.hosts}"' in done.stdout
    assert node.state() == before
    apply(node, CHECK_CONFIG_PATH="false")
    assert node.written() == REGISTRIES


@pytest.mark.parametrize(
    "configuration",
    [
        "version = 3\n  [plugins.'io.containerd.cri.v1.images'.registry]  # here\n    config_path = '{hosts}' # all\n",
        '[plugins.cri.registry]\nconfig_path="{hosts}"\n',
        '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/x:{hosts}/:/etc/docker/certs.d"\n',
        '[plugins."a".registry]\nconfig_path = ""\n[plugins."b".registry]\nconfig_path = "{hosts}"\n',
    ],
)
def test_every_form_of_the_configuration_is_read(node: Node, configuration: str) -> None:
    """Versions 1 to 3, both quotes, a list of folders."""
    node.config.write_text(configuration.replace("{hosts}", str(node.hosts)))
    apply(node)
    assert node.written() == REGISTRIES


@pytest.mark.parametrize("pattern", ["{directory}/conf.d/*.toml", "conf.d/*.toml"])
def test_imported_files_are_read(node: Node, pattern: str) -> None:
    """By absolute and relative names; a file that nobody imports does not count."""
    text = node.config.read_text()
    put(node.directory / "conf.d" / "registry.toml", text)
    node.config.write_text("version = 2\n")
    assert node.run("apply").returncode == 1
    pattern = pattern.replace("{directory}", str(node.directory))
    node.config.write_text(f'version = 2\nimports = ["/nowhere/*.toml", "{pattern}"]\n')
    apply(node)
    assert node.written() == REGISTRIES


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("http://localhost:3128", r"http://(127\.0\.0\.1|\[::1\]):3128"),
        ("http://HOST_IP:30128", r"http://198\.51\.100\.4:30128"),
        ("http://[2001:db8::1]:3128", r"http://\[2001:db8::1\]:3128"),
        ("https://proxy.example.com:3128", r"https://proxy\.example\.com:3128"),
    ],
)
def test_a_node_is_given_an_address(node: Node, url: str, written: str) -> None:
    """It does not know the cluster's names. With TLS it has to be the name that the certificate is for."""
    apply(node, PROXY_URL=url, HOST_IP="198.51.100.4")
    (host,) = tomllib.loads(node.hosts_toml("quay.io").read_text())["host"]
    assert re.fullmatch(written, host)


@pytest.mark.parametrize("url", ["http://name.invalid:3128", "", "proxy:3128", "http://HOST_IP:1"])
def test_without_an_address_the_files_stay_as_they_are(node: Node, url: str) -> None:
    """A name server that does not answer for a while is no reason to change a node."""
    apply(node)
    before = node.state()
    done = node.run("apply", PROXY_URL=url)

    assert done.returncode == 1
    assert f"PROXY_URL={url}: not http:// or https:// with a name that has an address" in done.stdout
    assert node.state() == before


def test_only_names_of_registries_are_written(node: Node) -> None:
    """No pattern and no path; a registry without TLS and one with a port are fine."""
    told = apply(node, REGISTRIES="*.example.com -quay.io ../up _default http://lab:5000 ghcr.io:443")

    assert node.written() == ["ghcr.io:443", "lab:5000"]
    assert tomllib.loads(node.hosts_toml("lab:5000").read_text())["server"] == "http://lab:5000"
    assert [line for line in told.splitlines() if "left alone" in line] == [
        f"node-mirrors: left alone: {name} is not the name of one registry"
        for name in ("*.example.com", "-quay.io", "../up", "_default")
    ]


@pytest.fixture
def running(node: Node) -> Iterator[subprocess.Popen[str]]:
    with node.start(INTERVAL_S="0.2") as process:
        yield process
        process.kill()


def test_the_pod_keeps_the_files_and_takes_them_back_at_term(node: Node, running: subprocess.Popen[str]) -> None:
    """A file that was removed comes back; TERM ends it at once, and the node is as before."""
    before = {"config.toml": node.state()["config.toml"]}
    wait_until(node.applied.exists)
    assert node.written() == REGISTRIES
    node.hosts_toml("quay.io").unlink()
    wait_until(node.hosts_toml("quay.io").exists)

    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert node.state() == before
    assert not node.applied.exists()
    assert output.count("quay.io is pulled through") == 1, "what does not change is told once"


def test_the_pod_is_not_ready_until_containerd_reads_the_files(node: Node) -> None:
    """It waits, and goes on by itself when the configuration is right."""
    right = node.config.read_text()
    node.config.write_text("version = 2\n")
    with node.start(INTERVAL_S="0.1") as process:
        assert process.stdout is not None
        assert "containerd does not read" in process.stdout.readline()
        assert not node.applied.exists()
        node.config.write_text(right)
        wait_until(node.applied.exists)
        process.terminate()
        process.communicate(timeout=30)
    assert node.written() == []


def test_killed_at_any_step_the_next_one_goes_on(tmp_path: Path) -> None:
    """After a KILL before any of its programs, apply completes the work, and restore undoes it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("mkdir", "mv", "ln", "chmod", "rm", "rmdir"):
        text = KILL_AT_STEP.replace("$REAL", f"/bin/{name}")
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    url = {"PROXY_URL": "http://192.0.2.7:3128", "REGISTRIES": "quay.io ghcr.io", "REPLACE_FOREIGN": "true"}
    for step in range(1, 30):
        node = Node(tmp_path / f"node-{step}", url)
        put(node.hosts_toml("quay.io"))
        before = node.state()
        killing = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COUNTER": str(tmp_path / f"count-{step}"),
            "STEP": str(step),
        }
        killed = [node.run(command, **killing).returncode < 0 for command in ("apply", "restore")]
        if step % 2:
            apply(node)
            assert node.written() == ["ghcr.io", "quay.io"]
        node.run("restore")
        assert node.state() == before, f"killed before step {step}"
        if not any(killed):
            break
    else:
        pytest.fail("the script has more steps than were tried")
    assert step > 8


def test_a_folder_that_cannot_be_written_is_told(node: Node) -> None:
    """The others are written; the pod is not ready."""
    put(node.hosts / "quay.io")
    done = node.run("apply")
    assert done.returncode == 1
    assert f"cannot write to {node.hosts}/quay.io" in done.stdout
    assert node.written() == ["docker.io", "gcr.io", "ghcr.io", "registry.k8s.io"]


def test_without_a_command_it_says_how_it_is_used(node: Node) -> None:
    """A mistyped command changes nothing."""
    done = node.run("aply")
    assert (done.returncode, done.stderr) == (2, "usage: node-mirrors.sh run | apply | restore\n")
    assert not node.hosts.exists()
