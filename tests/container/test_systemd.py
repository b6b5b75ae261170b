"""docs/deploy/systemd: the unit is valid and closed, and its command runs as closed as its settings say.

There is no systemd to start it here, so bubblewrap stands in for what the unit asks of it: a root file system that is
read-only but for the state directory, no capability, and the settings file as a credential.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container.conftest import ROOT
from lab.addresses import Address
from lab.podman import status
from lab.programs import Program, find_program

pytestmark = pytest.mark.container

UNIT = ROOT / "docs/deploy/systemd/registry-proxy.service"
NAME_UNIT = ROOT / "docs/deploy/office/registry-local.service"
PLACE = "/opt/registry-proxy"
ADDRESS = Address("127.0.0.1", 3128)
MOST_EXPOSED = 20
"""In tenths: `systemd-analyze security` calls less than 2.0 OK, 10 is a service without any protection."""


needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@needs_analyze
@pytest.mark.parametrize("unit", [UNIT, NAME_UNIT], ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path, tmp_path: Path) -> None:
    """Every line is known, and the command is where the recipe puts it."""
    copied = tmp_path / unit.name
    copied.write_text(unit.read_text().replace(PLACE, str(ROOT)))
    verified = subprocess.run(["systemd-analyze", "verify", copied], capture_output=True, text=True, check=False)

    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, [])


@needs_analyze
def test_the_service_is_closed(tmp_path: Path) -> None:
    """What the service could do to the machine is little, by the measure of systemd itself."""
    shutil.copy(UNIT, tmp_path)
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={MOST_EXPOSED}",
        str(tmp_path / UNIT.name),
    ]
    measured = subprocess.run(command, capture_output=True, text=True, check=False)
    assert measured.returncode == 0, measured.stdout


def test_its_command_runs_where_only_the_state_can_be_written(own_network: None, tmp_path: Path) -> None:
    """The unit's command with the unit's environment: ready, cache and CA in the state directory, ended by TERM."""
    assert own_network is None
    state, credentials = tmp_path / "state", tmp_path / "credentials"
    state.mkdir(mode=0o700)
    credentials.mkdir()
    shutil.copy(ROOT / "config/registry-proxy.yaml", credentials)
    text = UNIT.read_text().replace("%S", "/var/lib").replace("%d", "/run/credentials")
    settings = dict(
        pair.split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE) for pair in line.split()
    )
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)

    command = [
        *(find_program("bwrap"), "--unshare-user", "--uid", "61234", "--gid", "61234", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/opt"),
        *("--ro-bind", sys.prefix, sys.prefix, "--ro-bind", str(ROOT), str(ROOT)),
        *("--tmpfs", "/var/lib", "--bind", str(state), "/var/lib/registry-proxy"),
        *("--tmpfs", "/run", "--ro-bind", str(credentials), "/run/credentials", "--ro-bind", str(ROOT), PLACE),
        *("--die-with-parent", "--", start),
    ]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", **settings}
    service = Program("service", command, tmp_path, environment=environment, listens_on=ADDRESS)
    try:
        service.start()
        assert status(ADDRESS, "/readyz") == 200
        assert {path.name for path in state.iterdir()} == {"cache", "ca"}
    finally:
        service.kill()
