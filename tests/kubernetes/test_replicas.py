"""config/kubernetes/overlays/replicas: several proxies with a bucket, accepted by Kubernetes and right."""

from pathlib import Path

import pytest
import yaml

from kubernetes.pod_security import violations
from kubernetes.test_manifests import NEWEST, OLDEST
from lab.kubernetes import KUSTOMIZE, Manifest, kustomize, named, of_kind, schema_problems
from lab.proxy import STOP_LIMIT_S
from regproxy.settings import load_settings

OVERLAY = KUSTOMIZE / "overlays" / "replicas"


@pytest.fixture(scope="module")
def manifests() -> tuple[Manifest, ...]:
    return kustomize(OVERLAY)


@pytest.fixture
def pod(manifests: tuple[Manifest, ...]) -> Manifest:
    template: Manifest = named(manifests, "Deployment")["spec"]["template"]
    return template


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_accepts_them(manifests: tuple[Manifest, ...], version: str, tmp_path: Path) -> None:
    """Oldest and newest release know every field and take every value."""
    assert schema_problems({"replicas": manifests}, version, tmp_path) == ""


def test_the_single_pod_has_given_way(manifests: tuple[Manifest, ...]) -> None:
    """There is one workload, and service, budget and policy select its pods."""
    deployment = named(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    assert list(of_kind(manifests, "StatefulSet")) == []
    assert deployment["metadata"]["namespace"] == "registry-proxy"
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        named(manifests, "Service")["spec"]["selector"],
        named(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        named(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            one["labelSelector"]["matchLabels"]
            for one in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ):
        assert selector.items() <= labels.items()


def test_one_can_go_without_the_others(manifests: tuple[Manifest, ...], pod: Manifest) -> None:
    """A new pod comes first, an old one waits to be forgotten, a drain takes one at a time, and they are spread."""
    spec = named(manifests, "Deployment")["spec"]

    assert spec["replicas"] > named(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (container,) = pod["spec"]["containers"]
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    drain_s = load_settings({"DRAIN_TIMEOUT": environment["DRAIN_TIMEOUT"]}).drain_timeout_s
    assert command == "sleep"
    assert int(seconds) + drain_s + STOP_LIMIT_S <= pod["spec"]["terminationGracePeriodSeconds"]
    assert [one["topologyKey"] for one in pod["spec"]["topologySpreadConstraints"]] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]


def test_all_of_them_have_one_ca_and_a_disk_of_their_own(pod: Manifest) -> None:
    """The CA is a secret that nobody can write to; the cache goes with the pod, and nothing needs a volume to move."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    (container,) = pod["spec"]["containers"]
    (ca,) = (mount for mount in container["volumeMounts"] if mount["name"] == "ca")
    secret = volumes["ca"]["secret"]

    assert ca == {"name": "ca", "mountPath": "/ca", "readOnly": True}
    assert {item["key"]: item["path"] for item in secret["items"]} == {"tls.crt": "ca.crt", "tls.key": "ca.key"}
    assert "emptyDir" in volumes["cache"]
    assert not any("persistentVolumeClaim" in volume for volume in volumes.values())
    assert not secret.get("optional", False)  # each would make a CA of its own


def test_only_who_is_ready_is_in_the_service(manifests: tuple[Manifest, ...], pod: Manifest) -> None:
    """A pod that starts or ends gets no new connections: by readiness, which the service does not overrule."""
    (container,) = pod["spec"]["containers"]

    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert not named(manifests, "Service")["spec"].get("publishNotReadyAddresses", False)


def test_they_are_restricted(pod: Manifest) -> None:
    """As the single pod is; no secret is in the environment."""
    (container,) = pod["spec"]["containers"]

    assert violations(pod["spec"]) == []
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "envFrom" not in container
    assert all("value" in variable for variable in container["env"])


def test_it_is_the_single_pods_container_with_a_bucket(pod: Manifest) -> None:
    """Image, ports and probes cannot drift apart."""
    single = named(kustomize(KUSTOMIZE / "base"), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    (container,) = pod["spec"]["containers"]
    more = {"env", "lifecycle", "resources", "volumeMounts"}

    assert {key: value for key, value in container.items() if key not in more} == {
        key: value for key, value in single.items() if key not in more
    }
    assert [one for one in single["env"] if one not in container["env"]] == []
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert (
        mounts
        == {volume["name"] for volume in pod["spec"]["volumes"]}
        >= {mount["name"] for mount in single["volumeMounts"]}
    )


def test_the_proxy_takes_the_settings(manifests: tuple[Manifest, ...], pod: Manifest, tmp_path: Path) -> None:
    """With the key of the secret; the cache fits into its volume, and the volume into what the pod may take."""
    (name,) = (volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume)
    text = named(manifests, "ConfigMap", name)["data"]["registry-proxy.yaml"]
    (tmp_path / "settings.yaml").write_text(text)
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    settings = load_settings({"CONFIG_FILE": str(tmp_path / "settings.yaml"), "STORE_KEY_FILE": str(tmp_path / "key")})
    (volume,) = (volume for volume in pod["spec"]["volumes"] if "emptyDir" in volume)
    volume_gib = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
    storage = pod["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"]

    assert settings.store_url is not None
    assert settings.warnings == ()
    assert settings.cache_max_size_bytes + settings.cache_min_free_bytes < volume_gib * 1024**3
    assert volume_gib < int(storage.removesuffix("Gi"))
    assert (
        yaml.safe_load(text)["registries"]
        == yaml.safe_load((KUSTOMIZE / "base" / "registry-proxy.yaml").read_text())["registries"]
    )
