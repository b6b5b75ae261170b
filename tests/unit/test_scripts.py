"""The scripts around the proxy: what they start, with what, and what they say when they cannot."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.addresses import free_port

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-s3cret"

# Tells what it was given, instead of being a proxy.
FAKE_MITMDUMP = """
import os, sys
umask = os.umask(0)
print(f"umask {umask:04o}", *(f"argument {each}" for each in sys.argv[1:]), sep="\\n")
sys.exit(7)
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout whose mitmdump only tells its arguments."""
    root = tmp_path / "a checkout"
    (root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "entrypoint.sh", root)
    (root / "addons").symlink_to(ROOT / "addons")
    write_program(root / ".venv/bin/mitmdump", FAKE_MITMDUMP)
    write_program(root / ".venv/bin/python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    return root


def start(program: Path, *arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "LISTEN_HOST": "127.0.0.1", "LISTEN_PORT": str(free_port()), **environ}
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def start_proxy(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the entry point from another directory, in which a file tries to be a module."""
    cwd = checkout.parent / "elsewhere"
    cwd.mkdir()
    (cwd / "yaml.py").write_text("raise SystemExit('the wrong module')", encoding="utf-8")
    directories = {"CACHE_DIRECTORY": str(cwd / "the cache"), "CA_DIRECTORY": str(cwd / "ca")}
    return start(checkout / "entrypoint.sh", *arguments, cwd=cwd, **{**directories, **environ})


def test_the_entry_point_becomes_mitmdump_with_the_addon(checkout: Path) -> None:
    """The addon's path is absolute, further arguments come last, and mitmdump's exit code is the entry point's."""
    done = start_proxy(checkout, "--set", "a=b c")

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "umask 0077",
        "argument --set",
        "argument server=false",
        "argument --set",
        "argument termlog_verbosity=warn",
        "argument -s",
        f"argument {checkout}/addons/registry_proxy.py",
        "argument --set",
        f"argument confdir={checkout.parent}/elsewhere/the cache/.mitmproxy",
        "argument --set",
        "argument a=b c",
    ]
    assert done.returncode == 7


def test_no_secret_is_an_argument_of_mitmdump(checkout: Path) -> None:
    """Everybody on a machine can read the arguments of its programs."""
    done = start_proxy(checkout, AUTH_REGISTRIES=f"a.test:user:{SECRET}", CERT_PASSWORD=SECRET)

    assert "argument -s" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_a_bad_setting_keeps_mitmdump_from_starting(checkout: Path) -> None:
    """One line and an exit code that is not 0: a proxy with half of its settings would be worse than none."""
    done = start_proxy(checkout, LISTEN_PORT="abc")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "registry-proxy: error: LISTEN_PORT=abc: not a port number (1-65535)\n"


def test_without_mitmdump_the_entry_point_says_what_to_do(checkout: Path) -> None:
    """A checkout before `make serve` has no environment."""
    shutil.rmtree(checkout / ".venv")
    done = start_proxy(checkout, PATH="/usr/bin:/bin")

    assert done.returncode == 1
    assert done.stderr.startswith("registry-proxy: error: mitmdump is neither in ")
    assert done.stderr.count("\n") == 1


def test_mitmdump_is_also_found_in_the_path(checkout: Path) -> None:
    """A container has no .venv: the packages are the image's."""
    elsewhere = checkout.parent / "bin"
    (checkout / ".venv" / "bin").rename(elsewhere)
    done = start_proxy(checkout, PATH=f"{elsewhere}:/usr/bin:/bin")

    assert done.returncode == 7
    assert f"argument {checkout}/addons/registry_proxy.py" in done.stdout


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """Return a PATH with the few programs that a script itself uses, and `id` of an ordinary user."""
    directory = tmp_path / "bare"
    directory.mkdir()
    for name in ("sh", "rm"):
        (directory / name).symlink_to(str(shutil.which(name)))
    write_program(directory / "id", "#!/bin/sh\necho 1000\n")
    return directory


def test_missing_test_packages_are_named(bare_path: Path, tmp_path: Path) -> None:
    """Who may not install packages is told all of them in one line."""
    script = tmp_path / "test-packages"
    text = (ROOT / "scripts" / "test-packages").read_text(encoding="utf-8")
    write_program(script, text.replace("PATH=$PATH:/usr/sbin:/sbin", ""))
    done = start(script, cwd=tmp_path, PATH=str(bare_path))

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert all(name in done.stderr for name in ("docker-registry", "nginx-light", "openssl", "shellcheck", "skopeo"))


def test_root_installs_only_the_missing_packages(bare_path: Path, tmp_path: Path) -> None:
    """Nothing is asked of the package manager that is there already, and its index is brought up to date first."""
    script = tmp_path / "test-packages"
    text = (ROOT / "scripts" / "test-packages").read_text(encoding="utf-8")
    text = text.replace("PATH=$PATH:/usr/sbin:/sbin", "").replace(
        "/usr/sbin/policy-rc.d", str(tmp_path / "policy-rc.d")
    )
    write_program(script, text)
    write_program(bare_path / "id", "#!/bin/sh\necho 0\n")
    write_program(bare_path / "chmod", f'#!/bin/sh\nexec {shutil.which("chmod")} "$@"\n')
    write_program(bare_path / "apt-get", f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat {tmp_path}/policy-rc.d\n')
    (bare_path / "cat").symlink_to(str(shutil.which("cat")))
    for name in ("chromedriver", "chromium", "docker-registry", "nginx", "openssl"):
        write_program(bare_path / name, "#!/bin/sh\n")
    done = start(script, cwd=tmp_path, PATH=str(bare_path))

    assert done.returncode == 0
    assert (tmp_path / "asked").read_text(encoding="utf-8").splitlines() == [
        "update -q",
        "install -qy --no-install-recommends busybox jq shellcheck skopeo",
    ]
    assert "exit 101" in done.stderr, "services must not be started while packages are installed"
    assert not (tmp_path / "policy-rc.d").exists()


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-dev.txt"])
def test_pinned_packages_have_hashes_and_no_index(name: str) -> None:
    """Every line is an exact version with a hash, and no package index is named."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]

    assert len(lines) > 40
    assert [line for line in lines if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []
    assert "://" not in text


def test_the_runtime_packages_are_those_that_are_tested() -> None:
    """The tests run with the versions that the proxy is served with."""
    runtime, development = (
        set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE))
        for name in ("constraints.txt", "constraints-dev.txt")
    )

    assert runtime < development


@pytest.mark.parametrize(
    "script", ["entrypoint.sh", ".ci/run", *(f"scripts/{p.name}" for p in (ROOT / "scripts").iterdir())]
)
def test_scripts_can_be_run_and_stop_at_errors(script: str) -> None:
    """Each is executable, names its shell, and does not go on after a failed command."""
    path = ROOT / script
    text = path.read_text(encoding="utf-8")

    assert os.access(path, os.X_OK)
    assert text.startswith("#!")
    assert re.search(r"^set -eu", text, flags=re.MULTILINE)
