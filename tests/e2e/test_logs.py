"""What a proxy prints: JSON into a file, words and colours on a terminal, and what became of tags."""

import contextlib
import json
import os
import pty
import re
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from lab.fixtures import StartProxy
from lab.image import MANIFEST
from lab.origin import Origin, Reply
from lab.proxy import ENTRYPOINT, Proxy
from regproxy.oci.digest import Digest

pytestmark = pytest.mark.e2e

LIMIT_S = 30.0
FIRST, SECOND = b'{"schemaVersion":2}', b'{"schemaVersion": 2}'
COLOUR = re.compile(r"\x1b\[[0-9]+m")


def manifest(body: bytes) -> Reply:
    return Reply(body, headers={"Content-Type": MANIFEST, "Docker-Content-Digest": str(Digest.of(body))})


def move_a_tag(proxy: Proxy, origin: Origin) -> None:
    """Have a client see it at two places, and then nowhere."""
    origin.serve("/v2/logs/app/manifests/1", manifest(FIRST), manifest(SECOND), manifest(SECOND), Reply(b"{}", 404))
    url, client = f"https://{origin.name}/v2/logs/app/manifests/1", proxy.client()
    assert [client.get(url, {"Accept": MANIFEST}).status for _ in range(3)] == [200, 200, 404]


class Screen:
    """A terminal that a proxy writes to."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """What has been written so far."""
        return b"".join(self._read).decode().replace("\r\n", "\n")

    def _collect(self) -> None:
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(self.master, 4096):
                self._read.append(piece)

    def close(self) -> None:
        """Wait until all that was written is read."""
        os.close(self.slave)
        self._reader.join(LIMIT_S)
        os.close(self.master)


@pytest.fixture
def screen() -> Iterator[Screen]:
    """Open a terminal."""
    opened = Screen()
    yield opened
    opened.close()


def wait_for_text(screen: Screen, text: str) -> None:
    """Wait until it is on the screen."""
    deadline_s = time.monotonic() + LIMIT_S
    while text not in screen.text:
        assert time.monotonic() < deadline_s, screen.text
        time.sleep(0.05)


def test_every_line_in_a_file_is_json(proxy: Proxy, origin: Origin) -> None:
    """Requests and messages; the first message says what this proxy does, a tag that moves or vanishes is told."""
    move_a_tag(proxy, origin)
    proxy.stop()

    lines = [json.loads(line) for line in proxy.log.splitlines()]
    messages = [(line["level"], line["message"]) for line in lines if "message" in line]
    assert "is a mirror of the same registries" in next(text for _, text in messages if "listens on" in text)
    tag = f"{origin.name}/logs/app:1"
    first, second = Digest.of(FIRST), Digest.of(SECOND)
    assert ("info", f"tag moved: {tag} from {first} to {second}") in messages
    assert ("warning", f"tag vanished: {tag} was {second}, the registry does not have it any more") in messages
    assert [line["status"] for line in lines if "access_time" in line] == ["200", "200", "404"]


def test_on_a_terminal_it_is_readable(start_proxy: StartProxy, origin: Origin, screen: Screen) -> None:
    """One line each, coloured; a client cannot write elsewhere on the screen."""
    proxy = start_proxy(start=False)
    environment = {**proxy._environment(), "TERM": "xterm"}
    with subprocess.Popen(
        [str(ENTRYPOINT)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=screen.slave,
        stderr=screen.slave,
        start_new_session=True,
    ) as running:
        try:
            wait_for_text(screen, "listens on")
            while proxy.readiness() != 200:
                assert running.poll() is None, screen.text
                time.sleep(0.05)
            origin.serve("/v2/logs/app/manifests/1", manifest(FIRST))
            url = f"https://{origin.name}/v2/logs/app/manifests/1"
            for agent in ("docker/26.0", "wipe \x9b2J the screen"):
                proxy.client().get(url, {"Accept": MANIFEST, "User-Agent": agent})
            wait_for_text(screen, "the screen)")
        finally:
            running.terminate()

    assert "\x9b" not in screen.text
    lines = [line for line in COLOUR.sub("", screen.text).splitlines() if "/v2/logs/app/manifests/1" in line]
    assert re.match(rf"\d\d:\d\d:\d\d MISS        200 GET  {origin.name}/v2/logs/app/manifests/1 manifest", lines[0])
    assert "(wipe \ufffd2J the screen)" in lines[-1]
    assert "\x1b[33mMISS" in screen.text


def test_form_and_level_can_be_chosen(start_proxy: StartProxy, origin: Origin) -> None:
    """Text without colours in a file; the access log whatever the level."""
    proxy = start_proxy({"LOG_FORMAT": "text", "LOG_LEVEL": "warning"})
    move_a_tag(proxy, origin)
    proxy.stop()

    assert "\x1b" not in proxy.log
    assert "tag moved" not in proxy.log
    assert "warning: tag vanished" in proxy.log
    assert proxy.log.count(f"GET  {origin.name}/v2/logs/app/manifests/1 ") == 3
