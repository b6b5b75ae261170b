"""The manifests that are checked: what operators can make of base, overlay, components, and of the chart."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from lab.kubernetes import KUSTOMIZE, Manifest, helm, kustomize

type Rendering = Callable[[Path], tuple[Manifest, ...]]

CHART_WITH_ALL = (
    *("--set", "nodes.enabled=true", "--set", "nodes.proxyUrl=http://HOST_IP:30128", "--set", "service.type=NodePort"),
    *("--set", "openshift=true", "--set", "ca.secretName=registry-proxy-ca", "--set", "serviceAccountName=ecr"),
    *("--set", "cache.storageClassName=fast", "--set", "imagePullSecrets={mine}", "--set", "image.tag=1.2.3"),
    *("--set", "nodes.seLinuxType=spc_t", "--set", "nodes.containerdDirectory=/var/lib/containerd-etc"),
    *("--set-json", 'env=[{"name":"PROXY_AUTH","valueFrom":{"secretKeyRef":{"name":"login","key":"text"}}}]'),
    *("--set-json", 'networkPolicy.ingressFrom=[{"ipBlock":{"cidr":"192.0.2.0/24"}}]'),
    *("--set-json", 'tolerations=[{"operator":"Exists"}]', "--set-json", 'nodeSelector={"disk":"ssd"}'),
    *("--set-json", 'podAnnotations={"a":"b"}', "--set-json", 'service.annotations={"a":"b"}'),
)
"""Every value that has an effect of its own."""


def with_components(*components: str, base: str = "base") -> Rendering:
    """Return what renders a kustomization of an operator's own that adds components."""

    def render(directory: Path) -> tuple[Manifest, ...]:
        paths = {
            "resources": [os.path.relpath(KUSTOMIZE / base, directory)],
            "components": [os.path.relpath(KUSTOMIZE / "components" / name, directory) for name in components],
        }
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(paths))
        return kustomize(directory)

    return render


RENDERINGS: Mapping[str, Rendering] = {
    "base": lambda _: kustomize(KUSTOMIZE / "base"),
    "containerd-nodes": lambda _: kustomize(KUSTOMIZE / "overlays" / "containerd-nodes"),
    "base, all components": with_components("node-port", "ca-from-secret", "openshift"),
    "nodes by node port": with_components("node-port", base="overlays/containerd-nodes"),
    "chart": lambda _: helm(),
    "chart, nodes": lambda _: helm("--set", "nodes.enabled=true"),
    "chart, all": lambda _: helm(*CHART_WITH_ALL, release="mirror", namespace="elsewhere"),
}
