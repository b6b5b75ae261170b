"""config/kubernetes and config/helm: accepted by Kubernetes, right in themselves, and equal to one another."""

import copy
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubernetes.pod_security import violations
from kubernetes.renderings import RENDERINGS
from lab.kubernetes import CHART, KUSTOMIZE, ROOT, Manifest, helm, kustomize, named, of_kind, run_tool, schema_problems
from lab.programs import LabError
from regproxy.settings import load_settings

OLDEST, NEWEST = "1.27", "1.37"
"""Of Kubernetes; the oldest is the chart's `kubeVersion`."""

SCRIPT = KUSTOMIZE / "overlays/containerd-nodes/node-mirrors.sh"


type Rendered = Mapping[str, tuple[Manifest, ...]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return {name: render(tmp_path_factory.mktemp("rendering")) for name, render in RENDERINGS.items()}


@pytest.fixture(params=RENDERINGS)
def manifests(request: pytest.FixtureRequest, rendered: Rendered) -> tuple[Manifest, ...]:
    return rendered[request.param]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_accepts_them(rendered: Rendered, version: str, tmp_path: Path) -> None:
    """Oldest and newest release know every field and take every value."""
    assert schema_problems(rendered, version, tmp_path) == ""


def test_the_oldest_release_is_the_one_that_the_chart_names() -> None:
    """What is checked is what is promised."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_a_field_that_does_not_exist_is_found(tmp_path: Path) -> None:
    """The schema check can fail."""
    wrong = [copy.deepcopy(dict(one)) for one in kustomize(KUSTOMIZE / "base")]
    workload = next(one for one in wrong if one["kind"] == "StatefulSet")
    workload["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True

    assert "readOnlyRootFilesystem" in schema_problems({"wrong": wrong}, NEWEST, tmp_path)


def workloads(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    return [*of_kind(manifests, "StatefulSet"), *of_kind(manifests, "DaemonSet")]


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def test_selectors_meet_the_pods_that_they_are_for(manifests: tuple[Manifest, ...]) -> None:
    """Service, budget and policy select the proxy's pod and no other; each workload selects its own."""
    pods = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in workloads(manifests)}
    statefulset = named(manifests, "StatefulSet")
    proxy = [statefulset["metadata"]["name"]]
    for workload in workloads(manifests):
        selector = workload["spec"]["selector"]["matchLabels"]
        assert [name for name, labels in pods.items() if selects(selector, labels)] == [workload["metadata"]["name"]]
    selectors = [
        named(manifests, "Service")["spec"]["selector"],
        named(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        named(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert [name for name, labels in pods.items() if selects(selector, labels)] == proxy
    assert statefulset["spec"]["serviceName"] == named(manifests, "Service")["metadata"]["name"]


def test_ports_have_one_name(manifests: tuple[Manifest, ...]) -> None:
    """Service, probes and policy name the container's port, which is the proxy's default."""
    (container,) = named(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    (of_service,) = named(manifests, "Service")["spec"]["ports"]
    (ingress,) = named(manifests, "NetworkPolicy")["spec"]["ingress"]

    assert (port["name"], port["containerPort"]) == ("proxy", load_settings({}).listen_port)
    assert (of_service["targetPort"], of_service["port"]) == ("proxy", 3128)
    assert [one["port"] for one in ingress["ports"]] == ["proxy"]
    paths = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {container[probe]["httpGet"]["port"] for probe in paths} == {"proxy"}


def test_all_that_is_mounted_is_there(manifests: tuple[Manifest, ...]) -> None:
    """Each mount has its volume and each volume its mount; maps of the pod's namespace exist."""
    maps = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in of_kind(manifests, "ConfigMap")}
    wanted = set()
    for workload in workloads(manifests):
        spec, namespace = workload["spec"]["template"]["spec"], workload["metadata"]["namespace"]
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        volumes = [*claims, *(volume["name"] for volume in spec["volumes"])]
        (container,) = spec["containers"]
        assert sorted(volumes) == sorted(mount["name"] for mount in container["volumeMounts"])
        names = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
        names += [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
        wanted |= {(namespace, name) for name in names}
    assert wanted == maps


def test_the_proxy_is_restricted(manifests: tuple[Manifest, ...]) -> None:
    """Its pod breaks no rule of the restricted level, and its root file system is read-only."""
    spec = named(manifests, "StatefulSet")["spec"]["template"]["spec"]

    assert violations(spec) == []
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False


def test_the_pods_on_nodes_may_do_only_what_they_need(rendered: Rendered) -> None:
    """They are root and have two folders of the node, one to read; all else is restricted, too."""
    for name in ("containerd-nodes", "chart, nodes"):
        spec = named(rendered[name], "DaemonSet")["spec"]["template"]["spec"]
        mounts = {mount["name"]: mount.get("readOnly", False) for mount in spec["containers"][0]["volumeMounts"]}

        assert sorted(violations(spec)) == ["runAsNonRoot", "runAsUser", "volume hostPath", "volume hostPath"]
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert mounts == {"script": True, "state": False, "containerd": True, "hosts": False}


def test_each_namespace_admits_its_pods(rendered: Rendered) -> None:
    """The proxy's enforces what the proxy keeps; the other one is for pods with folders of the node."""
    found = rendered["containerd-nodes"]
    levels = {
        one["metadata"]["name"]: one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for one in of_kind(found, "Namespace")
    }
    assert levels == {"registry-proxy": "restricted", "registry-proxy-nodes": "privileged"}
    assert named(found, "StatefulSet")["metadata"]["namespace"] == "registry-proxy"
    assert named(found, "DaemonSet")["metadata"]["namespace"] == "registry-proxy-nodes"


def test_the_rules_of_the_restricted_level_are_checked() -> None:
    """A pod with nothing set breaks those that need something to be set; one with everything wrong breaks all."""
    bare = {"containers": [{"name": "a"}]}
    assert violations(bare) == ["allowPrivilegeEscalation", "runAsNonRoot", "seccompProfile", "capabilities"]
    wrong = {
        "hostNetwork": True,
        "hostPID": True,
        "hostIPC": True,
        "volumes": [{"name": "a", "hostPath": {}}],
        "securityContext": {
            "sysctls": [{}],
            "seLinuxOptions": {"type": "spc_t"},
            "windowsOptions": {"hostProcess": True},
        },
        "containers": [
            {
                "ports": [{"hostPort": 80}],
                "securityContext": {
                    "privileged": True,
                    "procMount": "Unmasked",
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": True,
                    "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
                    "appArmorProfile": {"type": "Unconfined"},
                    "seccompProfile": {"type": "Unconfined"},
                },
            }
        ],
    }
    assert set(violations(wrong)) == {
        *("hostNetwork", "hostPID", "hostIPC", "sysctls", "seLinuxOptions", "hostProcess", "volume hostPath"),
        *("privileged", "procMount", "runAsUser", "allowPrivilegeEscalation", "capabilities", "appArmorProfile"),
        *("seccompProfile", "hostPort", "runAsNonRoot"),
    }


def without_what_tools_add(manifests: tuple[Manifest, ...]) -> dict[tuple[str, str], Any]:
    """Return the manifests by kind and name, without hashes in names, Helm's labels, and the checksums for pods.

    The proxy's own namespace is not the chart's: `helm --create-namespace` makes it.
    """
    text = re.sub(
        r"(registry-proxy(?:-nodes)?-(?:settings|script))-[a-z0-9]{10}\b", r"\1", yaml.safe_dump_all(manifests)
    )
    found = {}
    for manifest in yaml.safe_load_all(text):
        labels = manifest["metadata"]["labels"]
        for label in ("helm.sh/chart", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"):
            labels.pop(label, None)
        pod = manifest.get("spec", {}).get("template", {}).get("metadata", {})
        pod.get("annotations", {}).pop("checksum/settings", None)
        if not pod.get("annotations", {"set": "by someone"}):
            del pod["annotations"]
        if manifest["metadata"]["name"] == "registry-proxy-settings":
            manifest["data"] = {name: yaml.safe_load(text) for name, text in manifest["data"].items()}
        found[manifest["kind"], manifest["metadata"]["name"]] = manifest
    found.pop(("Namespace", "registry-proxy"), None)
    return found


def test_chart_and_kustomize_make_the_same(rendered: Rendered) -> None:
    """Every object is equal in every field, the nodes' included."""
    of_kustomize = without_what_tools_add(rendered["containerd-nodes"])
    of_chart = without_what_tools_add(rendered["chart, nodes"])

    assert len(of_kustomize) == 9
    assert of_chart == of_kustomize


def test_chart_and_components_make_the_same(rendered: Rendered) -> None:
    """Each component is one value of the chart."""
    of_components = without_what_tools_add(rendered["base, all components"])
    values = ("service.type=NodePort", "ca.secretName=registry-proxy-ca", "openshift=true")
    of_chart = without_what_tools_add(helm(*(argument for value in values for argument in ("--set", value))))

    assert of_chart == of_components
    service, statefulset = of_chart["Service", "registry-proxy"], of_chart["StatefulSet", "registry-proxy"]
    assert service["spec"]["ports"][0]["nodePort"] == 30128
    assert "runAsUser" not in statefulset["spec"]["template"]["spec"]["securityContext"]
    assert [claim["metadata"]["name"] for claim in statefulset["spec"]["volumeClaimTemplates"]] == ["cache"]


def test_the_chart_carries_the_same_node_script() -> None:
    """Helm reads no file outside of a chart, kustomize none outside of its folder: there are two."""
    assert (CHART / "files/node-mirrors.sh").read_bytes() == SCRIPT.read_bytes()


def test_changed_settings_start_new_pods() -> None:
    """The chart's checksums follow the settings and the nodes' settings, each for its own pods."""

    def checksums(*values: str) -> list[str]:
        found = helm("--set", "nodes.enabled=true", *values)
        return [one["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] for one in workloads(found)]

    proxy, nodes = checksums()
    assert [
        one == other for one, other in zip(checksums("--set", "settings.debug=true"), (proxy, nodes), strict=True)
    ] == [
        False,
        True,
    ]
    assert [
        one == other for one, other in zip(checksums("--set", "nodes.replaceForeign=true"), (proxy, nodes), strict=True)
    ] == [True, False]


def test_the_proxy_takes_the_settings(manifests: tuple[Manifest, ...], tmp_path: Path) -> None:
    """The file of the map is one of ours; its cap leaves room on the claimed volume."""
    statefulset = named(manifests, "StatefulSet")
    data = named(manifests, "ConfigMap", statefulset["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"])[
        "data"
    ]
    file = tmp_path / "registry-proxy.yaml"
    file.write_text(data["registry-proxy.yaml"])
    settings = load_settings({"CONFIG_FILE": str(file)})

    claim = statefulset["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert settings.warnings == ()
    assert settings.cache_max_size_bytes + settings.cache_min_free_bytes < int(claim.removesuffix("Gi")) * 1024**3


def test_nodes_use_the_proxy_for_what_it_caches() -> None:
    """The list of the nodes is Docker Hub and the proxy's own list, in overlay and chart, and that is its default."""
    of_proxy = yaml.safe_load((KUSTOMIZE / "base/registry-proxy.yaml").read_text())["registries"]
    (of_nodes,) = re.findall(r"^REGISTRIES=(.*)$", (SCRIPT.parent / "nodes.env").read_text(), re.MULTILINE)
    (of_script,) = re.findall(r"^registries=\$\{REGISTRIES:-(.*)\}$", SCRIPT.read_text(), re.MULTILINE)
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert of_nodes.split() == of_script.split() == values["nodes"]["registries"] == ["docker.io", *of_proxy]
    assert values["settings"]["registries"] == of_proxy


def test_versions_are_those_of_the_project(rendered: Rendered) -> None:
    """Chart, base and overlay start the image of this version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (version, version)
    for one in workloads(rendered["containerd-nodes"]):
        assert one["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry-proxy:{version}"


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    """`helm lint --strict`, with the nodes, too."""
    for arguments in ([], ["--set", "nodes.enabled=true"]):
        done = run_tool("helm", "lint", "--strict", str(CHART), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "nodes.enable=true",
        "cache.size=big",
        "nodes.registries={*.example.com}",
        "nodes.proxyUrl=proxy:3128",
        "settings.credentials={a}",
        "settings.listen_port=80",
        "podDisruptionBudget.maxUnavailable=2",
        "replicas=2",
    ],
)
def test_the_chart_refuses_what_it_does_not_know(value: str) -> None:
    """A mistyped value, one that cannot work, and a login in what everyone may read stop Helm, which names them."""
    with pytest.raises(LabError, match=value.split("=", maxsplit=1)[0].rpartition(".")[2]):
        helm("--set", value)


def test_the_schema_knows_every_value() -> None:
    """Each value of values.yaml stands in the schema, and the other way round."""

    def keys(tree: Any, prefix: str = "") -> set[str]:
        found = {f"{prefix}{key}" for key in tree}
        for key, value in tree.items():
            if prefix == "" and isinstance(value, dict) and key not in {"settings", "resources"}:
                found |= keys(value, f"{key}.")
        return found

    def known(schema: Any, prefix: str = "") -> set[str]:
        found = {f"{prefix}{key}" for key in schema["properties"]}
        for key, value in schema["properties"].items():
            if prefix == "" and isinstance(value, dict) and value.get("additionalProperties") is False:
                found |= known(value, f"{key}.")
        return found

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert keys(values) == known(json.loads((CHART / "values.schema.json").read_text())) - {"global"}
