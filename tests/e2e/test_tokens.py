"""The proxy does the token exchange itself: cold, warm, with and without a login of the client, and when it fails."""

import base64
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.registry import PASSWORD, USERNAME
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e

LOGIN = {"AUTH_REGISTRIES": f"token.lab.test:{USERNAME}:{PASSWORD}"}
"""For the registry only: the token server is another host, and no registry of the proxy."""
WARM = {**LOGIN, "ENABLE_MANIFEST_CACHE": "true"}
ALICE = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


def blob_hashes(directory: Path) -> set[str]:
    return {f"sha256:{digest}" for digest in hash_files(directory).values()}


class TestPulls:
    def test_without_any_login_a_private_image_is_pulled_cold_and_warm(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The registry's login is enough; the second pull asks neither the token server nor for content."""
        image = build_image(layers=3)
        lab.push(image, "private/tokens")
        reference = f"{lab.token.name}/private/tokens:latest"
        proxy = start_proxy(WARM)
        asked = lab.auth.log.mark()
        proxy.skopeo("cold").pull(reference, tmp_path / "cold")
        assert set(image.blobs) <= blob_hashes(tmp_path / "cold")
        # one for the repository and one for `/v2/`, both with the login
        assert asked.count(path_contains="/token", status=200) == asked.count(path_contains="/token") == 2
        assert {request.authorization for request in asked.requests()} == {"Basic"}
        assert [request.target for request in asked.requests() if "scope=" in request.target] != []
        asked, read = lab.auth.log.mark(), lab.token.log.mark()
        proxy.skopeo("warm").pull(reference, tmp_path / "warm")
        assert hash_files(tmp_path / "warm") == hash_files(tmp_path / "cold")
        assert (asked.requests(), read.requests()) == ([], [])

    def test_a_stale_tag_is_revalidated_with_the_same_token(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """With tags that are never fresh, a warm pull is one HEAD with the token that is there."""
        lab.push(build_image(), "private/head")
        reference = f"{lab.token.name}/private/head:latest"
        proxy = start_proxy(LOGIN)
        proxy.skopeo("cold").pull(reference, tmp_path / "cold")
        asked, read = lab.auth.log.mark(), lab.token.log.mark()
        proxy.skopeo("warm").pull(reference, tmp_path / "warm")
        assert asked.requests() == []
        assert [(request.method, request.authorization) for request in read.requests()] == [("HEAD", "Bearer")]
