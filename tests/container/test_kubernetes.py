"""The pods of config/kubernetes, as far as they are containers: our image, with what their manifests allow it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.addresses import Address
from lab.kubernetes import KUSTOMIZE, Manifest, kustomize, named
from lab.podman import Container, Podman, status

pytestmark = pytest.mark.container

ADDRESS = Address("127.0.0.1", 3128)
_LIMIT_S = 30.0
CONTAINERD = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"""


@pytest.fixture(scope="module")
def manifests() -> tuple[Manifest, ...]:
    return kustomize(KUSTOMIZE / "overlays/containerd-nodes")


def as_in_pod(manifest: Manifest, volumes: Mapping[str, Path]) -> list[str]:
    """Return podman's options for the one container of a workload; `volumes` are those of the pod, by name."""
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    context: dict[str, Any] = {**pod["securityContext"], **container["securityContext"]}
    assert set(volumes) == {mount["name"] for mount in container["volumeMounts"]}
    options = ["--read-only", "--read-only-tmpfs=false"] if context["readOnlyRootFilesystem"] else []
    options += [] if context["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
    options += [f"--cap-drop={capability.lower()}" for capability in context["capabilities"]["drop"]]
    options += ["--user", f"{context['runAsUser']}:{context['runAsGroup']}"]
    options += [f"--env={one['name']}={one['value']}" for one in container["env"] if "value" in one]
    for mount in container["volumeMounts"]:
        mode = "ro" if mount.get("readOnly") else "rw"
        options.append(f"--volume={volumes[mount['name']]}:{mount['mountPath']}:{mode}")
    return options


def for_group(directory: Path, group: int, files: Mapping[str, str] | None = None) -> Path:
    """Make a volume as the kubelet does for `fsGroup`: root's, and the group may write."""
    directory.mkdir()
    for name, text in (files or {}).items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o440)
        os.chown(directory / name, 0, group)
    os.chown(directory, 0, group)
    directory.chmod(0o2770)
    return directory


def test_the_proxy_runs_with_what_its_pod_has(
    podman: Podman, image: str, manifests: tuple[Manifest, ...], tmp_path: Path
) -> None:
    """User, group, folders and settings of the manifest are enough; it makes its CA, and reads the mounted secret."""
    statefulset = named(manifests, "StatefulSet")
    group = statefulset["spec"]["template"]["spec"]["securityContext"]["fsGroup"]
    settings = next(
        one["data"] for one in manifests if one["kind"] == "ConfigMap" and "registry-proxy.yaml" in one["data"]
    )
    secret = {".dockerconfigjson": '{"auths": {"quay.io": {"username": "robot", "password": "text"}}}'}
    tmp_path.chmod(0o755)
    volumes = {
        "cache": for_group(tmp_path / "cache", group),
        "ca": for_group(tmp_path / "ca", group),
        "settings": for_group(tmp_path / "settings", group, settings),
        "pull": for_group(tmp_path / "pull", group, secret),
    }
    container = podman.start(image, "--network=host", *as_in_pod(statefulset, volumes)).wait_ready(ADDRESS)

    assert status(ADDRESS, "/healthz") == 200
    assert (tmp_path / "ca" / "ca.crt").stat().st_uid == 1000
    assert "AUTH_CONFIG_FILE=/secrets/pull/.dockerconfigjson: read, logins: 1" in container.log
    assert container.stop(10) == 0


def test_the_pod_on_a_node_sets_it_up_and_takes_that_back(
    podman: Podman, image: str, manifests: tuple[Manifest, ...], tmp_path: Path
) -> None:
    """The image has what the script needs, and root without capabilities may write in root's folder."""
    daemonset = named(manifests, "DaemonSet")
    data = {name: text for one in manifests if one["kind"] == "ConfigMap" for name, text in one["data"].items()}
    volumes = {name: tmp_path / name for name in ("script", "state", "containerd")}
    for folder in volumes.values():
        folder.mkdir()
    (volumes["script"] / "node-mirrors.sh").write_text(data["node-mirrors.sh"])
    (volumes["containerd"] / "config.toml").write_text(CONTAINERD)
    volumes["hosts"] = volumes["containerd"] / "certs.d"
    volumes["hosts"].mkdir()
    settings = {
        **{name: data[name] for name in ("REGISTRIES", "REPLACE_FOREIGN")},
        "PROXY_URL": "http://localhost:3128",
    }
    environment = [f"--env={name}={value}" for name, value in settings.items()]
    entry, *command = daemonset["spec"]["template"]["spec"]["containers"][0]["command"]
    options = [*as_in_pod(daemonset, volumes), *environment, f"--entrypoint={entry}", "--network=host"]
    container = podman.start(image, *options, command=command)

    wait_until_there(volumes["state"] / "applied", container)
    written = sorted(folder.name for folder in volumes["hosts"].iterdir() if folder.is_dir())
    assert written == sorted(data["REGISTRIES"].split())
    assert container.stop(10) == 0
    assert list(volumes["hosts"].iterdir()) == []


def wait_until_there(file: Path, container: Container) -> None:
    deadline_s = time.monotonic() + _LIMIT_S
    while not file.exists():
        assert container.is_running, container.log
        assert time.monotonic() < deadline_s, container.log
        time.sleep(0.05)
