"""The set-up script, run on a stand-in for a host: paths below a folder, and programs that only take note."""

import datetime as dt
import os
import subprocess
from pathlib import Path

import pytest

from regproxy.engine.authority import create
from regproxy.stack.setup_pages import systemd_script

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a folder with what the script needs of a Debian host; `ca.crt` is what the proxy gives."""
    for directory in ("etc/systemd", "usr/share/ca-certificates", "bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/ca-certificates.conf").write_text("mozilla/One.crt\ndocker_registry_proxy.crt\n")
    programs = {
        "curl": f'cat "{tmp_path}/ca.crt"',
        "update-ca-certificates": ":",
        "systemctl": f'echo "$@" >>"{tmp_path}/systemctl"',
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def set_up(host: Path, *certificates: bytes) -> dict[str, bytes]:
    """Run the script and return the certificates that the host trusts afterwards."""
    (host / "ca.crt").write_bytes(b"".join(certificates))
    script = systemd_script("http://proxy.lan:3128")
    for directory in ("/etc/", "/usr/share/"):
        script = script.replace(directory, f"{host}{directory}")
    environ = {"PATH": f"{host}/bin:{os.defpath}", "TMPDIR": str(host)}
    subprocess.run(["sh"], input=script, text=True, env=environ, check=True, capture_output=True)
    listed = (host / "etc/ca-certificates.conf").read_text().splitlines()
    assert listed[0] == "mozilla/One.crt"
    return {name: (host / "usr/share/ca-certificates" / name).read_bytes() for name in listed[1:]}


def test_two_cas_become_two_files(host: Path) -> None:
    """`openssl rehash` passes over a file with two certificates, and a host would lose the CA it had."""
    old = create(host / "1.crt", host / "1.key", NOW).chain_pem
    new = create(host / "2.crt", host / "2.key", NOW).chain_pem

    assert set_up(host, old) == {"docker_registry_proxy.crt": old}
    assert set_up(host, old, new) == {"docker_registry_proxy.crt": old, "docker_registry_proxy_next.crt": new}
    assert set_up(host, new) == {"docker_registry_proxy.crt": new}
    assert (host / "systemctl").read_text().splitlines()[:2] == ["daemon-reload", "restart docker.service"]
    assert (
        'Environment="HTTPS_PROXY=http://proxy.lan:3128/"'
        in (host / "etc/systemd/system/docker.service.d/http-proxy.conf").read_text()
    )
