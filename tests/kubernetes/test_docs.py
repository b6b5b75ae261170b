"""docs/deploy/kubernetes.md: its files and commands, as far as they can be run without a cluster."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from kubernetes.node import SCRIPT
from lab.kubernetes import CHART, KUSTOMIZE, ROOT, Manifest, named, run_tool, tool
from regproxy.settings import load_settings

PAGE = ROOT / "docs/deploy/kubernetes.md"
TEXT = PAGE.read_text()
COMMANDS: list[str] = [
    command
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for command in block.replace("\\\n", " ").splitlines()
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with our configuration, the files of the page, and a home with Docker's login."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for name, text in re.findall(r"^```yaml (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"auths": {"quay.io": {"auth": "YTpi"}}}')
    return tmp_path


def run(command: str, checkout: Path) -> list[Manifest]:
    """Run a command of the page, which must succeed, with helm and kubectl of ours, and return what it prints."""
    program, _, rest = command.partition(" ")
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout), "KUBECONFIG": "/dev/null"}
    done = subprocess.run(
        ["sh", "-c", f"{shlex.quote(tool(program))} {rest}"],
        env=environment,
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def command_with(words: str) -> str:
    """Return the one command of the page that begins with these words."""
    (command,) = [command for command in COMMANDS if command.startswith(words)]
    return command


def images(manifests: list[Manifest]) -> set[str]:
    return {
        container["image"]
        for one in manifests
        for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    }


def test_every_command_is_one_that_is_tried() -> None:
    """Each is run below, or its object is looked for."""
    assert [command.split()[0] for command in COMMANDS].count("helm") == 1
    assert len(COMMANDS) == 6


def test_the_folder_of_ones_own_is_a_kustomization(checkout: Path) -> None:
    """`kubectl apply -k` would apply the image, the settings and the registries that the page gives."""
    found = run(command_with("kubectl apply -k").replace("apply -k", "kustomize"), checkout)

    assert images(found) == {"registry.example.com/registry-proxy:0.1.0"}
    maps = [one["metadata"]["name"] for one in found if one["kind"] == "ConfigMap"]
    (settings,) = [name for name in maps if name.startswith("registry-proxy-settings-")]
    (nodes,) = [name for name in maps if name.startswith("registry-proxy-nodes-settings-")]
    assert len(maps) == 3
    assert named(found, "ConfigMap", nodes)["data"]["REGISTRIES"] == "docker.io quay.io"
    assert named(found, "ConfigMap", nodes)["data"]["PROXY_URL"].startswith("http://registry-proxy.")
    file = checkout / "settings.yaml"
    file.write_text(named(found, "ConfigMap", settings)["data"]["registry-proxy.yaml"])
    assert load_settings({"CONFIG_FILE": str(file)}).warnings == ()
    volumes = named(found, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["configMap"]["name"] == settings


def test_the_chart_is_installed_with_its_values(checkout: Path) -> None:
    """Both workloads have the image that the page names."""
    command = command_with("helm upgrade --install").replace("upgrade --install", "template")
    found = run(command.replace("--create-namespace", ""), checkout)

    assert images(found) == {"registry.example.com/registry-proxy:0.1.0"}
    assert named(found, "DaemonSet")["metadata"]["namespace"] == "registry-proxy-nodes"


def test_the_secret_is_the_one_that_is_mounted(checkout: Path) -> None:
    """Its name, namespace, type and key."""
    (secret,) = run(f"{command_with('kubectl --namespace registry-proxy create')} --dry-run=client -o yaml", checkout)
    pod = named(run("kubectl kustomize config/kubernetes/base", checkout), "StatefulSet")
    (volume,) = [one for one in pod["spec"]["template"]["spec"]["volumes"] if "secret" in one]

    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    assert pod["metadata"]["namespace"] == secret["metadata"]["namespace"]
    assert (secret["type"], list(secret["data"])) == ("kubernetes.io/dockerconfigjson", [".dockerconfigjson"])


@pytest.mark.parametrize("verb", ["rollout", "logs"])
def test_the_objects_that_are_looked_at_exist(verb: str, checkout: Path) -> None:
    """The DaemonSet has the name and namespace of both ways."""
    words = shlex.split(command_with(f"kubectl --namespace registry-proxy-nodes {verb}"))
    chart = "helm template registry-proxy config/helm/registry-proxy --set nodes.enabled=true"
    for command in ("kubectl kustomize cluster", chart):
        daemonset = named(run(command, checkout), "DaemonSet")["metadata"]
        assert (words[2], words[-1]) == (daemonset["namespace"], f"daemonset/{daemonset['name']}")


def test_the_label_is_that_of_the_base(checkout: Path) -> None:
    """Helm's `--create-namespace` sets none."""
    *_, name, label = command_with("kubectl label namespace").split()
    key, _, level = label.partition("=")
    namespace = named(run("kubectl kustomize config/kubernetes/base", checkout), "Namespace", name)
    assert namespace["metadata"]["labels"][key] == level


def test_what_the_page_names_exists() -> None:
    """Components, values, settings of the node script, and the releases of Kubernetes."""
    components = re.findall(r"`components/([a-z-]+)`", TEXT)
    assert sorted(set(components)) == sorted(path.name for path in (KUSTOMIZE / "components").iterdir())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for value in re.findall(r"`((?:service|ca|nodes|networkPolicy)\.[A-Za-z]+)", TEXT):
        group, _, name = value.partition(".")
        assert name in values[group], value
    script = SCRIPT.read_text()
    for variable in ("REGISTRIES", "REPLACE_FOREIGN", "PROXY_URL", "HOST_IP"):
        assert variable in TEXT
        assert f"${{{variable}:-" in script
    assert "Kubernetes 1.27 and later" in TEXT
    assert run_tool("helm", "show", "chart", str(CHART)).stdout.count("kubeVersion: '>=1.27.0-0'") == 1
