"""docs/deploy/office/registry-local.service: avahi tells a host beside it the address of registry.local."""

import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from container.conftest import ROOT
from lab.programs import LabError, Program, find_program

pytestmark = pytest.mark.container

UNIT = ROOT / "docs/deploy/office/registry-local.service"
ADDRESS = "192.0.2.10"
HOST_ADDRESS = "192.0.2.20"
GROUP = ("224.0.0.251", 5353)
"""RFC 6762 section 3."""

_ANSWER_LIMIT_S = 1.0
_START_LIMIT_S = 20.0

AVAHI = """\
[server]
host-name=office
use-ipv6=no
allow-interfaces=office0
"""
BUS = """\
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
"""
START_AVAHI = """\
set -eu
mkdir -p /run/avahi-daemon
mount -t tmpfs tmpfs /run/avahi-daemon
exec "$1" --no-drop-root --no-chroot --no-rlimits --file "$2"
"""


class Host:
    """A host at the other end of a cable, in a network namespace of its own, that asks for names by multicast."""

    def __init__(self, process_id: int) -> None:
        self._namespace = Path(f"/proc/{process_id}/ns/net")

    def ask(self, name: str) -> str | None:
        """Return the IPv4 address that somebody tells for `name`, None when nobody does in time."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
        with self._socket() as asker:
            asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HOST_ADDRESS))
            asker.settimeout(_ANSWER_LIMIT_S)
            asker.sendto(question, GROUP)
            try:
                answer = asker.recv(1500)
            except TimeoutError:
                return None
        # an A record ends with its length, 4, and the address (RFC 1035 section 3.2.1); the answer is the last record
        (length,) = struct.unpack("!H", answer[-6:-4])
        return socket.inet_ntoa(answer[-4:]) if length == 4 else None

    def _socket(self) -> socket.socket:
        """Return a socket of the host's network; it stays there when this process comes back."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(self._namespace, os.O_RDONLY)
        try:
            os.setns(there, os.CLONE_NEWNET)
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            os.setns(here, os.CLONE_NEWNET)
            os.close(here)
            os.close(there)


@pytest.fixture
def host(own_network: None) -> Iterator[Host]:
    """Lay a cable from the office's machine, which is where the test runs, to a host."""
    assert own_network is None
    process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    inside = ["nsenter", "--net", f"--target={process.pid}"]
    try:
        while Path(f"/proc/{process.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)
        cable = ["ip", "link", "add", "office0", "type", "veth", "peer", "name", "host0", "netns", str(process.pid)]
        subprocess.run(cable, check=True)
        for where, name, address in (([], "office0", ADDRESS), (inside, "host0", HOST_ADDRESS)):
            subprocess.run([*where, "ip", "address", "add", f"{address}/24", "dev", name], check=True)
            subprocess.run([*where, "ip", "link", "set", name, "up"], check=True)
        yield Host(process.pid)
    finally:
        process.kill()
        process.wait()
        subprocess.run(["ip", "link", "delete", "office0"], check=False)


def wait_until(is_so: Callable[[], bool], program: Program) -> None:
    """Return when it is so; LabError when that takes too long or the program ends."""
    deadline_s = time.monotonic() + _START_LIMIT_S
    while not is_so():
        if not program.is_running or time.monotonic() > deadline_s:
            raise LabError(f"{program.name} does not do its work:\n{program.log_tail()}")
        time.sleep(0.05)


@pytest.fixture
def avahi(host: Host, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start avahi with a message bus of its own, and yield the environment that leads its tools to it."""
    bus_socket = tmp_path / "bus"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus_socket}"}
    (tmp_path / "avahi.conf").write_text(AVAHI)
    (tmp_path / "bus.conf").write_text(BUS.format(socket=bus_socket))
    bus_command = [find_program("dbus-daemon"), "--nofork", f"--config-file={tmp_path}/bus.conf"]
    own_run = ["unshare", "--mount", "sh", "-c", START_AVAHI, "sh", find_program("avahi-daemon")]
    with ExitStack() as cleanup:
        bus = Program("bus", bus_command, tmp_path, environment=environment)
        daemon = Program("avahi", [*own_run, str(tmp_path / "avahi.conf")], tmp_path, environment=environment)
        for program in (bus, daemon):
            program.start()
            cleanup.callback(program.kill)
            wait_until(bus_socket.exists, program)
        wait_until(lambda: host.ask("office.local") == ADDRESS, daemon)
        yield environment


def test_registry_local_is_found_by_a_host(avahi: dict[str, str], host: Host, tmp_path: Path) -> None:
    """The unit's command with the unit's environment: a question by multicast is answered with its address."""
    unit = UNIT.read_text()
    settings = dict(pair.split("=", 1) for pair in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE))
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    words = [settings["ADDRESS"] if word == "${ADDRESS}" else word for word in command.split()]
    assert settings["ADDRESS"] == ADDRESS
    assert host.ask("registry.local") is None

    publisher = Program("publisher", words, tmp_path, environment=avahi)
    publisher.start()
    try:
        wait_until(lambda: host.ask("registry.local") is not None, publisher)
        assert host.ask("registry.local") == ADDRESS
    finally:
        publisher.kill()
