"""Fixtures of the tests that build and run the image: a base, an engine, and a network that nobody else is in.

The whole run is in a network namespace of its own: bridges, port forwarding and name servers of the engine are seen by
these tests alone and end with them. What has to be loaded is loaded before. Where that cannot be done the tests are
skipped and say why.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.debian_base import UnavailableError, base_archive, wheels
from lab.lab import Lab
from lab.podman import Podman, why_not
from lab.programs import LabError

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "var" / "container"
BASE = "localhost/registry-proxy-test-base:1"
IMAGE = "localhost/registry-proxy-test:1"

PIP_CONFIGURATION = "[global]\nno-index = true\nfind-links = /run/wheels\n"


@dataclass(frozen=True, slots=True)
class Supplies:
    """What has to be loaded from elsewhere before the network is left."""

    base_archive: Path
    wheels: Path


@pytest.fixture(scope="session")
def supplies() -> Supplies:
    """Return base and packages, or skip all tests that need them."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    try:
        return Supplies(base_archive(CACHE), wheels(ROOT / "constraints.txt", CACHE))
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def own_network(supplies: Supplies) -> Iterator[None]:
    """Leave the machine's network for one in which there is nothing but this run."""
    assert supplies.wheels.is_dir()
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        os.unshare(os.CLONE_NEWNET)
    except OSError as error:
        os.close(before)
        pytest.skip(f"this machine gives no network namespace: {error.strerror}")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        os.setns(before, os.CLONE_NEWNET)
        os.close(before)


@pytest.fixture(scope="session")
def lab(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield the lab of real registries, inside the run's own network."""
    assert own_network is None
    with Lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="session")
def podman(own_network: None, supplies: Supplies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Yield an engine that has the base image."""
    assert own_network is None
    engine = Podman(tmp_path_factory.mktemp("podman") / "state")
    try:
        try:
            engine.run("import", str(supplies.base_archive), BASE)
            engine.run("run", "--rm", "--pull=never", BASE, "true")
        except LabError as error:
            pytest.skip(f"this machine runs no container, not even an empty one: {error}")
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def image(podman: Podman, supplies: Supplies) -> str:
    """Build the Containerfile on the local base and return the image's name."""
    configuration = podman.directory / "pip.conf"
    configuration.write_text(PIP_CONFIGURATION)
    options = [
        *("--volume", f"{configuration}:/etc/pip.conf:ro"),
        *("--volume", f"{supplies.wheels}:/run/wheels:ro"),
        *("--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", "REVISION=0123abc"),
    ]
    podman.build(ROOT, ROOT / "Containerfile", IMAGE, options=options)
    return IMAGE


@pytest.fixture(autouse=True)
def _no_containers_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove the containers of each test that has any when it ends, and tell what they printed."""
    yield
    if "podman" not in request.fixturenames:
        return
    podman: Podman = request.getfixturevalue("podman")
    for name in podman.run("ps", "--all", "--quiet").stdout.split():
        print(podman.run("logs", name, check=False))  # noqa: T201 - in the report of a failed test
    podman.run("rm", "--all", "--force", "--volumes", "--time", "1", check=False)
