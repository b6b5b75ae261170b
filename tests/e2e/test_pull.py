"""Real images through the proxy with skopeo: once from the registry, then from the cache."""

from pathlib import Path

import pytest

from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("registry_name", ["noauth", "redirect"])
def test_the_second_pull_asks_the_registry_for_no_content(
    lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path, registry_name: str
) -> None:
    """A multi-arch image is pulled twice: the second time without a manifest GET or a blob request, bytes identical."""
    image = build_image(architectures=("amd64", "arm64"))
    lab.push(image, f"pull/{registry_name}")
    registry = getattr(lab, registry_name)
    reference = f"{registry.name}/pull/{registry_name}:latest"
    proxy.skopeo("first").pull(reference, tmp_path / "first", all_platforms=True)
    log = registry.log.mark()
    proxy.skopeo("second").pull(reference, tmp_path / "second", all_platforms=True)

    assert hash_files(tmp_path / "first") == hash_files(tmp_path / "second")
    assert log.count(method="GET", path_contains="/manifests/") == 0
    assert log.count(path_contains="/blobs/") == 0
    assert log.count(method="HEAD", path_contains="/manifests/latest") == 1
