"""The container image: what is in it, and that it runs where little is allowed."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.addresses import Address
from lab.image import make_image
from lab.lab import Lab
from lab.podman import Container, Podman, status
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.container

LIMIT_BYTES = 250_000_000
STOP_LIMIT_S = 5
ADDRESS = Address("127.0.0.1", 3128)
SEALED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
"""Nothing can be written but the two volumes: podman's own /tmp and /run are taken away, too."""

type StartImage = Callable[..., Container]


@pytest.fixture
def start(podman: Podman, image: str, lab: Lab) -> StartImage:
    """Return what starts the image in the run's network with the lab's settings; it listens on port 3128."""
    trusted = ("--volume", f"{lab.pki.ca_file}:/lab-ca.crt:ro")
    settings = {**lab.proxy_settings, "UPSTREAM_CA_FILE": "/lab-ca.crt"}
    environment = [f"--env={name}={value}" for name, value in settings.items()]

    def start_one(*options: str) -> Container:
        return podman.start(image, "--network=host", *trusted, *environment, *options)

    return start_one


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Return the folder with the predecessor's two folders, root's, as Docker makes them."""
    for name in ("docker_mirror_cache", "docker_mirror_certs"):
        (tmp_path / name).mkdir()
    return tmp_path


def mounted(volumes: Path, *, ca_mode: str = "rw") -> list[str]:
    """Return the options of the predecessor's README."""
    cache, ca = volumes / "docker_mirror_cache", volumes / "docker_mirror_certs"
    return [f"--volume={cache}:/docker_mirror_cache", f"--volume={ca}:/ca:{ca_mode}"]


class TestContent:
    def test_it_is_small(self, podman: Podman, image: str) -> None:
        """Under 250 MB, uncompressed, with the base: Debian trixie here, not python:3.13-slim (see lab.debian_base)."""
        assert podman.inspect("image", image)["Size"] < LIMIT_BYTES

    def test_it_says_what_it_is(self, podman: Podman, image: str) -> None:
        """User, ports, volumes, stop signal, health check and the OCI annotations are in its configuration."""
        told = podman.inspect("image", image)
        config = told["Config"]
        assert config["User"] == "1000:0"
        assert set(config["ExposedPorts"]) == {"3128/tcp", "8081/tcp", "8082/tcp"}
        assert set(config["Volumes"]) == {"/ca", "/docker_mirror_cache"}
        assert config["StopSignal"] == "SIGTERM"
        assert config["Entrypoint"] == ["/opt/registry-proxy/entrypoint.sh"]
        assert told["Healthcheck"]["Interval"] == 30_000_000_000
        prefix = "org.opencontainers.image."
        labels = {name.removeprefix(prefix): value for name, value in config["Labels"].items()}
        assert labels["title"] == "registry-proxy"
        assert labels["licenses"] == "MIT"
        assert labels["revision"] == "0123abc"
        assert {"description", "version", "created", "base.name"} <= labels.keys()

    def test_no_compiler_and_no_installer_is_left(self, podman: Podman, image: str) -> None:
        """What an intruder would build with is not there, and neither are the tools of our own build."""
        wanted = "cc gcc g++ c++ clang ld as make rustc cargo git pip pip3"
        script = f'for name in {wanted}; do command -v "$name"; done; true'
        assert podman.run("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script).stdout == ""

    def test_only_its_own_files_are_in_it(self, podman: Podman, image: str) -> None:
        """Nothing of the working copy but what runs: no tests, no cache, no git."""
        listed = podman.run(
            "run", "--rm", "--network=none", "--entrypoint=ls", image, "-A", "/opt/registry-proxy"
        ).stdout
        programs = {"addons", "config", "entrypoint.sh", "healthcheck.py", "scripts"}
        assert set(listed.split()) == programs | {".venv", "LICENSE", "__pycache__"}

    def test_its_user_cannot_change_it(self, podman: Podman, image: str) -> None:
        """With a writable root file system the program is still not its user's."""
        script = "find /opt/registry-proxy -writable -not -type l | head"
        for user in ("1000", "12345"):
            run = ("run", "--rm", "--network=none", f"--user={user}", "--entrypoint=sh")
            assert podman.run(*run, image, "-c", script).stdout == ""


class TestSealed:
    def test_an_image_is_pulled_through_it(self, start: StartImage, lab: Lab, tmp_path: Path) -> None:
        """Read-only, no capabilities, a user that nobody knows: cold, then from the cache without a registry."""
        made = make_image(tmp_path / "made", seed="sealed", layers=2, layer_bytes=300_000)
        lab.push(made, "some/image")
        container = start(*SEALED, "--user=12345").wait_ready(ADDRESS)
        skopeo = trusting_skopeo(container, tmp_path)

        skopeo.pull("noauth.lab.test/some/image:latest", tmp_path / "cold")
        with lab.noauth.stopped():
            skopeo.pull("noauth.lab.test/some/image:latest", tmp_path / "warm")

        assert container.execute("id", "-u").strip() == "12345"
        assert hash_files(tmp_path / "cold") == hash_files(tmp_path / "warm")
        lines = [json.loads(line) for line in container.log.splitlines() if line.startswith('{"access_time"')]
        blobs = [line["upstream_cache_status"] for line in lines if line["request_type"] == "blob-by-digest"]
        assert blobs == ["MISS"] * 3 + ["HIT"] * 3
        assert container.stop(STOP_LIMIT_S) == 0

    def test_it_writes_to_its_volumes_only(self, podman: Podman, start: StartImage, lab: Lab, tmp_path: Path) -> None:
        """Where it could write everywhere it does not: after a pull the root file system is as it was."""
        lab.push(make_image(tmp_path / "made", seed="unsealed"), "other/image")
        container = start("--user=0").wait_ready(ADDRESS)
        trusting_skopeo(container, tmp_path).pull("noauth.lab.test/other/image:latest", tmp_path / "pulled")

        mount_points = {"/etc", "/lab-ca.crt", "/run", "/run/.containerenv", "/etc/mtab"}
        changed = {line.split()[1] for line in podman.run("diff", container.name).stdout.splitlines()}
        assert changed - mount_points == set()

    def test_a_restart_keeps_the_ca(self, podman: Podman, start: StartImage) -> None:
        """`restart` is what hosts that trust the CA must survive."""
        container = start(*SEALED, "--user=12345").wait_ready(ADDRESS)
        before = container.execute("cat", "/ca/ca.crt")
        podman.run("restart", "--time", str(STOP_LIMIT_S), container.name)

        assert container.wait_ready(ADDRESS).execute("cat", "/ca/ca.crt") == before

    @pytest.mark.parametrize("delay_s", [0.0, 0.3, 0.6, 0.9])
    def test_it_ends_at_a_term_that_comes_while_it_starts(self, start: StartImage, delay_s: float) -> None:
        """Process 1 has a handler at every moment: it is never killed after the time of grace."""
        container = start(*SEALED)
        time.sleep(delay_s)
        assert container.stop(STOP_LIMIT_S) == 0

    def test_its_health_check_tells_the_truth(self, podman: Podman, start: StartImage, tmp_path: Path) -> None:
        """0 while it serves, on the port of its settings, also where these are a file; 1 when nobody is there."""
        (tmp_path / "settings.yaml").write_text("listen_port: 3333\n")
        start(*SEALED, "--env=LISTEN_PORT=3129", "--name=by-environment").wait_ready(Address("127.0.0.1", 3129))
        yaml = (f"--volume={tmp_path}/settings.yaml:/settings.yaml:ro", "--env=CONFIG_FILE=/settings.yaml")
        start(*SEALED, *yaml, "--name=by-file").wait_ready(Address("127.0.0.1", 3333))

        assert podman.run("healthcheck", "run", "by-environment", check=False).returncode == 0
        assert podman.run("healthcheck", "run", "by-file", check=False).returncode == 0
        check = ("python3", "-I", "/opt/registry-proxy/healthcheck.py")
        refused = podman.run("exec", "--env=LISTEN_PORT=3130", "by-environment", *check, check=False)
        assert refused.returncode == 1
        assert "refused" in refused.stderr


class TestInThePredecessorsPlace:
    def test_its_command_line_starts_the_proxy(self, podman: Podman, image: str, volumes: Path) -> None:
        """`-p 3128:3128` and the two folders, as root as there: ready on all addresses, and the CA is in its folder."""
        options = ["--user=0", "--publish=3128:3128", *mounted(volumes)]
        container = podman.start(image, *options, "--env=REGISTRIES=quay.io ghcr.io").wait_ready(ADDRESS)

        assert "BEGIN CERTIFICATE" in (volumes / "docker_mirror_certs/ca.crt").read_text()
        assert container.stop(STOP_LIMIT_S) == 0

    def test_folders_of_the_user_need_no_root(self, podman: Podman, image: str, volumes: Path) -> None:
        """What the docs say: chown the folders, or start as who owns them; then no capability is needed."""
        for name in ("docker_mirror_cache", "docker_mirror_certs"):
            shutil.chown(volumes / name, 4321)
        options = [*SEALED, "--user=4321:4321", "--publish=3128:3128", *mounted(volumes)]
        assert podman.start(image, *options).wait_ready(ADDRESS).stop(STOP_LIMIT_S) == 0

    def test_folders_of_root_are_told_to_everybody_else(self, podman: Podman, image: str, volumes: Path) -> None:
        """It does not start, and says in one line a folder whose it is, whom it is for, and both remedies."""
        container = podman.start(image, *mounted(volumes))
        assert container.wait() == 1
        lines = container.log.splitlines()
        assert [line.split(":")[2].strip().split("=")[0] for line in lines] == ["CACHE_DIRECTORY", "CA_DIRECTORY"]
        for line, path in zip(lines, ("/docker_mirror_cache", "/ca"), strict=True):
            assert f"chown -R 1000 {path}" in line
            assert "--user 0" in line

    @pytest.mark.parametrize("user", ["0", "4321"])
    def test_its_ca_may_be_read_only(self, podman: Podman, image: str, volumes: Path, user: str) -> None:
        """An RSA key with the passphrase foobar, 0400, on a read-only mount: it is used, and nothing is written."""
        certs = volumes / "docker_mirror_certs"
        make_predecessors_ca(certs)
        for path in (certs / "ca.key", certs / "ca.crt", volumes / "docker_mirror_cache"):
            shutil.chown(path, int(user))
        options = [*SEALED, f"--user={user}", "--network=host", *mounted(volumes, ca_mode="ro")]
        podman.start(image, *options).wait_ready(ADDRESS)

        ca = certs / "ca.crt"
        command = [
            "openssl",
            "s_client",
            "-proxy",
            str(ADDRESS),
            "-connect",
            "quay.io:443",
            "-verify_hostname",
            "quay.io",
        ]
        shaken = subprocess.run(
            [*command, "-CAfile", ca, "-verify_return_error"], input="", capture_output=True, text=True, check=False
        )
        assert "Verify return code: 0 (ok)" in shaken.stdout, shaken.stderr
        assert sorted(path.name for path in certs.iterdir()) == ["ca.crt", "ca.key"]


def trusting_skopeo(container: Container, directory: Path) -> Skopeo:
    """Return a client of the proxy in the container, which trusts the CA that it hands out."""
    assert status(ADDRESS, "/ca.crt") == 200
    (directory / "ca.crt").write_text(container.execute("cat", "/ca/ca.crt"))
    return Skopeo(directory / "skopeo", directory / "ca.crt", ADDRESS)


def make_predecessors_ca(directory: Path) -> None:
    """Write ca.key and ca.crt with the predecessor's kinds and extensions, by openssl, as it does."""
    key, certificate = directory / "ca.key", directory / "ca.crt"
    secret = "pass:foobar"
    openssl("genrsa", "-des3", "-passout", secret, "-out", str(key), "2048")
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature,cRLSign,keyCertSign"]
    options = [word for extension in extensions for word in ("-addext", extension)]
    subject = "/C=NL/ST=Noord Holland/L=Amsterdam/O=ME/OU=IT/CN=DockerMirrorBox CA Root lab"
    made = ("req", "-new", "-x509", "-days", "1300", "-sha256", "-key", str(key), "-passin", secret)
    openssl(*made, "-out", str(certificate), "-subj", subject, *options)
    key.chmod(0o400)
    certificate.chmod(0o400)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
