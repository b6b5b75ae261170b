"""What surrounds the process cannot get in, and its secrets do not get out: files, arguments, environments, modules."""

import contextlib
import json
import os
import stat
import sys
import time
from pathlib import Path

import pytest

from lab.debug_mode import debug_proxy
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME

pytestmark = pytest.mark.e2e

SECRETS = {
    "AUTH_REGISTRIES": "other.lab.test:bob:Registry-Zq7",
    "CERT_PASSWORD": "Passphrase-Zq7",
    "PROXY_AUTH": "eve:ProxyLogin-Zq7",
    "DEBUG_PASSWORD": "Browser-Zq7-xx",
}
LIMIT_S = 30.0
TRACE = "Zq7"
"""Part of each of them."""

MODULES = ("json", "regproxy", "mitmproxy", "yaml", "diskcache", "registry_proxy", "sitecustomize", "usercustomize")


@pytest.fixture
def helpers(tmp_path: Path) -> Path:
    """Install `docker-credential-test`, which writes down what it was started with."""
    directory = tmp_path / "helpers"
    directory.mkdir()
    program = directory / "docker-credential-test"
    program.write_text(
        f"#!/bin/sh\ntr '\\0' '\\n' </proc/$$/environ >>{directory}/environ\n"
        f"tr '\\0' '\\n' </proc/$$/cmdline >>{directory}/cmdline\ncat >/dev/null\n"
        f"""printf '{{"ServerURL":"x","Username":"{USERNAME}","Secret":"{PASSWORD}"}}'\n"""
    )
    program.chmod(0o755)
    return directory


def arguments_of(proxy: Proxy) -> str:
    """Return the arguments of the proxy and its children, as everybody on the machine sees them."""
    told = ""
    for pid in proxy.pids():
        with contextlib.suppress(OSError):
            told += Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") + "\n"
    return told


def test_no_secret_is_given_to_a_child(start_proxy: StartProxy, helpers: Path, tmp_path: Path) -> None:
    """A credential helper sees neither the operator's logins nor the CA's passphrase; no argument has one."""
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"basic.lab.test": "test"}}))
    path = f"{helpers}:{Path(sys.executable).parent}:{os.defpath}"
    proxy = start_proxy({**SECRETS, "AUTH_CONFIG_FILE": str(tmp_path / "config.json"), "PATH": path})
    deadline_s = time.monotonic() + LIMIT_S
    while "from docker-credential-test" not in proxy.log:  # each login is tried at the start
        assert time.monotonic() < deadline_s, proxy.log
        time.sleep(0.05)

    environ, cmdline = (helpers / "environ").read_text(), (helpers / "cmdline").read_text()
    assert "PATH=" in environ
    assert cmdline.split()[-1] == "get"
    told = arguments_of(proxy)
    assert "registry_proxy.py" in told
    assert [text for text in (environ, cmdline, told, proxy.log) if TRACE in text] == []


def test_what_it_writes_is_for_its_user_only(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """After a pull nothing below cache and CA is open to others but the CA's certificate, which is for everybody."""
    lab.push(build_image(), "isolation/modes")
    before = os.umask(0)  # what an operator's shell may have
    try:
        proxy = start_proxy()
    finally:
        os.umask(before)
    proxy.skopeo().pull(f"{lab.noauth.name}/isolation/modes:latest", tmp_path / "pulled")

    written = [*proxy.cache_directory.rglob("*"), *proxy.ca_directory.rglob("*")]
    assert any("content" in path.parts for path in written)
    open_to_others = [path.name for path in written if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert open_to_others == ["ca.crt"]


@pytest.mark.parametrize("debug", ["false", "true"], ids=["mitmdump", "mitmweb"])
def test_no_module_comes_from_outside(lab: Lab, start_proxy: StartProxy, tmp_path: Path, debug: str) -> None:
    """Neither the working directory, nor PYTHONPATH, nor the user's own packages replace or add a module."""
    proxy = debug_proxy(lab, start_proxy, {"DEBUG": debug}, host_number=91)
    home = tmp_path / "proxy-0"  # also the working directory
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    marks = tmp_path / "marks"
    marks.mkdir()
    path = tmp_path / "python path"
    for directory in (home, path, home / ".local/lib" / version / "site-packages"):
        directory.mkdir(parents=True, exist_ok=True)
        for name in MODULES:
            planted = f"open({str(marks / name)!r}, 'w').close()\nraise SystemExit('planted: ' + __file__)\n"
            (directory / f"{name}.py").write_text(planted)
        (directory / "planted.pth").write_text(f"import os; open({str(marks / 'pth')!r}, 'w').close()\n")
    proxy.settings.update(PYTHONPATH=str(path), PYTHONSTARTUP=str(path / "json.py"), PYTHONHOME="/nonexistent")
    proxy.start()

    assert proxy.readiness() == 200
    assert list(marks.iterdir()) == []
    assert "planted" not in proxy.log
