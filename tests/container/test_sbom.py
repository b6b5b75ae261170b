"""The list of what the image holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.podman import Podman

pytestmark = pytest.mark.container

ROOT = Path(__file__).parents[2]


def test_everything_in_the_image_is_listed(podman: Podman, image: str, tmp_path: Path) -> None:
    """Every pinned package that is installed, Debian's, and no tool of the build; read from an exported image."""
    container = podman.run("create", image).stdout.strip()
    try:
        podman.run("export", f"--output={tmp_path / 'image.tar'}", container)
    finally:
        podman.run("rm", container)
    with (tmp_path / "image.tar").open("rb") as files:
        command = [sys.executable, "-m", "supply.sbom"]
        made = subprocess.run(command, cwd=ROOT, stdin=files, capture_output=True, text=True, check=True)

    listed = {each["purl"] for each in json.loads(made.stdout)["components"]}
    of_python = {purl.partition("@")[0].removeprefix("pkg:pypi/") for purl in listed if purl.startswith("pkg:pypi/")}
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {"mitmproxy", "aiohttp", "cryptography", "diskcache"} <= of_python
    assert of_python - pinned == set()
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)
