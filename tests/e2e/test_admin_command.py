"""The command `registry-proxy` on the real proxy, as people and scripts use it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.test_admin import REGISTRY, ask, pull
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

COMMAND = Path(__file__).parents[2] / "scripts" / "registry-proxy"
TOKEN = "sixteen-characters-or-more"


def run(proxy: Proxy, *arguments: str, code: int = 0, stdout: bool = False, stdin: str = "", **environ: str) -> str:
    """Run it against a proxy, and return what it printed, or said when it failed; AssertionError for another code."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "REGISTRY_PROXY_URL": f"http://{proxy.address}",
        "COLUMNS": "200",
        # A client of the proxy has this, and the command must not go through the proxy to reach it.
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        **environ,
    }
    done = subprocess.run(
        [str(COMMAND), *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 or stdout else done.stderr


def test_an_image_is_seen_explained_pinned_and_purged(lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
    """Each command says what a person wants to read, and with --json what a script does."""
    digest = lab.push(build_image(), "team/cli", "1.0")
    pull(proxy, "team/cli", "1.0")
    image = f"{REGISTRY}/team/cli:1.0"

    assert "4 MISS" in run(proxy, "status")
    assert image in run(proxy, "ls")
    (listed,) = json.loads(run(proxy, "ls", "--json", f"{REGISTRY}/team/cli"))["images"]
    assert listed["digest"] == digest
    assert f"https://{REGISTRY}" in run(proxy, "why", image)
    assert image in run(proxy, "pin", image)
    assert f"pinned, stays: {image}" in run(proxy, "purge", image)
    assert "nothing is pinned" in run(proxy, "unpin", image)
    assert f"would go: {image}" in run(proxy, "purge", image, "--dry-run")
    assert f"gone: {image}" in run(proxy, "purge", "--older-than", "0s", REGISTRY)
    assert "nothing stored" in run(proxy, "ls")


def test_the_last_requests_are_shown(lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
    """One a line, the newest last; with --json for a script."""
    lab.push(build_image(), "team/tail")
    answers = pull(proxy, "team/tail")

    assert run(proxy, "tail", "--no-follow", "-n", "2").count("MISS") == 2
    lines = run(proxy, "tail", "--no-follow", "-n", "100", "--json").splitlines()
    assert json.loads(lines[-1])["request_id"] == answers[-1].header("X-Registry-Proxy-Request-Id")


def test_what_is_wrong_in_the_cache_is_an_exit_code(lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
    """0 for a sound cache, 1 when something had to be removed."""
    lab.push(build_image(), "team/verified")
    broken = pull(proxy, "team/verified")[-1].header("Docker-Content-Digest")
    assert "0 were wrong" in run(proxy, "verify")
    (path,) = proxy.cache_directory.glob(f"content/*/*/{broken.removeprefix('sha256:')}")
    path.chmod(0o600)
    path.write_bytes(b"x" * path.stat().st_size)

    run(proxy, "verify", code=1)
    assert "0 were wrong" in run(proxy, "verify")


def test_a_warmed_image_is_pulled_from_the_cache(
    lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """All that the proxy's platform needs, once; others only when they are asked for; a second run asks for no blob."""
    image = build_image(architectures=("amd64", "arm64", "s390x"))
    lab.push(image, "team/warm")
    lab.push(build_image("plain"), "team/plain")
    name = f"{REGISTRY}/team/warm:latest"
    (tmp_path / "images.txt").write_text(f"# what the cluster needs\n{name}\n\n{REGISTRY}/team/plain:latest # plain\n")

    command = ("warm", "--json", "-f", str(tmp_path / "images.txt"), "--platform")
    first = {each["image"]: each for each in json.loads(run(proxy, *command, "linux/amd64"))["images"]}
    assert {each["state"] for each in first.values()} == {"done"}
    assert (first[name]["contents"], first[name]["stored"]) == (5, 5)
    assert first[name]["fetched_bytes"] > 200_000
    again = json.loads(run(proxy, *command, "linux/amd64"))["images"]
    assert {each["fetched_bytes"] for each in again} == {0}
    more = {each["image"]: each for each in json.loads(run(proxy, *command, "linux/amd64,linux/arm64"))["images"]}
    assert (more[name]["contents"], more[name]["fetched_bytes"] > 200_000) == (9, True)
    assert {
        answer.header("X-Docker-Registry-Proxy-Cache-Upstream-Status") for answer in pull(proxy, "team/plain")[1:]
    } == {"HIT"}


def test_what_cannot_be_warmed_is_said(lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
    """An image that is not there, a platform that it lacks, a registry that is not cached."""
    lab.push(build_image(architectures=("amd64", "arm64")), "team/two")

    none = run(proxy, "warm", "--json", f"{REGISTRY}/team/none:1", code=1, stdout=True)
    assert "404" in json.loads(none)["images"][0]["error"]
    lacking = run(
        proxy, "warm", "--json", f"{REGISTRY}/team/two:latest", "--platform", "linux/vax", code=1, stdout=True
    )
    assert "linux/amd64, linux/arm64" in json.loads(lacking)["images"][0]["error"]
    strange = run(proxy, "warm", "--json", "unknown.example/a:1", f"{REGISTRY}/team/two:latest", code=1, stdout=True)
    told = {each["image"]: each for each in json.loads(strange)["images"]}
    assert "none of REGISTRIES" in told["unknown.example/a:1"]["error"]
    assert told[f"{REGISTRY}/team/two:latest"]["state"] == "done"


def test_what_a_cluster_and_a_compose_file_need_is_warmed(
    lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """Manifests come from standard input, as kubectl prints them; a service that is built is said."""
    for name in ("team/pod", "team/init", "team/service"):
        lab.push(build_image(name), name)
    pods = f"""
    apiVersion: v1
    kind: List
    items:
    - kind: Pod
      spec:
        containers: [{{name: a, image: "{REGISTRY}/team/pod:latest"}}]
        initContainers: [{{name: b, image: {REGISTRY}/team/init}}]
    """
    (tmp_path / ".env").write_text(f"REGISTRY={REGISTRY}\n")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  web: {image: '${REGISTRY}/team/service:${TAG:-latest}'}\n  own: {build: .}\n"
    )

    warmed = json.loads(run(proxy, "warm", "--json", "--from-kubernetes", "-", stdin=pods))["images"]
    assert {each["image"] for each in warmed} == {f"{REGISTRY}/team/pod:latest", f"{REGISTRY}/team/init:latest"}
    compose = run(proxy, "warm", "--json", "--compose", str(tmp_path / "compose.yaml"))
    assert [each["image"] for each in json.loads(compose)["images"]] == [f"{REGISTRY}/team/service:latest"]
    complete = {each["repository"] for each in ask(proxy, "GET", "/images")["images"] if each["complete"]}
    assert complete == {"team/pod", "team/init", "team/service"}
    assert "no YAML" in run(proxy, "warm", "--from-kubernetes", "-", code=1, stdin="{")
    assert "say what" in run(proxy, "warm", "--from-kubernetes", "-", code=2)


def test_every_command_says_what_it_does(proxy: Proxy) -> None:
    """The list of commands has each, and each has a sentence and its options."""
    listed = run(proxy, "--help")
    for name in ("warm", "export", "import"):
        assert name in listed
        assert "Usage: registry-proxy" in run(proxy, name, "--help")
    assert "kubectl get pods -A -o yaml" in run(proxy, "warm", "--help")
    assert "--fetch" in run(proxy, "export", "--help")
    assert "--name" in run(proxy, "import", "--help")


def test_the_token_is_taken_from_the_environment_or_a_file(start_proxy: StartProxy, tmp_path: Path) -> None:
    """And what is missing is said."""
    proxy = start_proxy({"ADMIN_TOKEN": TOKEN})
    (tmp_path / "token").write_text(f"{TOKEN}\n")

    assert "version" in run(proxy, "status", ADMIN_TOKEN=TOKEN)
    assert "version" in run(proxy, "status", ADMIN_TOKEN_FILE=str(tmp_path / "token"))
    assert "set ADMIN_TOKEN" in run(proxy, "status", code=1)
    assert "No such file" in run(proxy, "status", code=1, ADMIN_TOKEN_FILE=str(tmp_path / "none"))


def test_errors_are_one_line(proxy: Proxy) -> None:
    """No traceback: what was asked, what is wrong, what to do."""
    nobody = run(proxy, "--url", "http://127.0.0.1:1", "status", code=1)
    assert "no proxy answers at http://127.0.0.1:1" in nobody
    assert "REGISTRY_PROXY_URL" in nobody
    assert "UPPER" in run(proxy, "purge", "UPPER/case", code=1)
    assert "older-than" in run(proxy, "purge", code=2)
