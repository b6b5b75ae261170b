"""Replicas give way to a newer version and back, one after the other, while clients pull all the time: no pull fails.

As Kubernetes does it with our Deployment: a new pod is ready first, the old one gets no new connections, then TERM.
"""

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from e2e.test_shared_store import sha256
from lab.addresses import Address
from lab.balancer import Balancer
from lab.fixtures import MakeImage
from lab.image import MANIFEST, Image
from lab.lab import Lab
from lab.newer import VERSION, newer_version
from lab.proxy import Proxy
from lab.seaweed import Seaweed, names_in
from lab.skopeo import Skopeo

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REGISTRY = "noauth.lab.test"
LIMIT_S = 60.0
IMAGES = 24
PULLS_OF_A_PHASE = 12
SETTINGS = {
    "ENABLE_MANIFEST_CACHE": "true",
    "MANIFEST_CACHE_PRIMARY_REGEX": ".*",
    "MANIFEST_CACHE_PRIMARY_TIME": "1s",
    "DRAIN_TIMEOUT": "30s",
}


class Clients:
    """Pull images through one address, all the time, and keep what goes wrong."""

    def __init__(self, lab: Lab, address: Address, images: dict[str, Image], directory: Path) -> None:
        self._lab, self._address, self._images, self._directory = lab, address, images, directory
        self._stopping = threading.Event()
        self.failures: list[str] = []
        self.pulls = {"plain": 0, "keep-alive": 0, "skopeo": 0}
        self._numbers = itertools.count()
        self._kept_alive = KeptAlive(address)
        self._threads = [
            threading.Thread(target=self._pull_all_the_time, args=(kind, pull))
            for kind, pull in (
                ("plain", self._plain),
                ("plain", self._plain),
                ("keep-alive", self._kept_alive.pull),
                ("skopeo", self._skopeo),
            )
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._kept_alive.close()

    def go_on(self) -> None:
        """Wait until each kind has pulled some more images, from the first byte on."""
        before, deadline_s = dict(self.pulls), time.monotonic() + LIMIT_S
        while any(self.pulls[kind] < before[kind] + PULLS_OF_A_PHASE // 3 for kind in before):
            assert time.monotonic() < deadline_s, (before, self.pulls, self.failures)
            time.sleep(0.05)

    def _pull_all_the_time(self, kind: str, pull: Callable[[str, Image], None]) -> None:
        names = list(self._images)
        while not self._stopping.is_set():
            name = names[next(self._numbers) % len(names)]
            try:
                pull(name, self._images[name])
            except Exception as error:  # noqa: BLE001 - whatever it is, a client would see it
                self.failures.append(f"{kind} {name}: {error!r}")
            self.pulls[kind] += 1

    def _plain(self, name: str, image: Image) -> None:
        """Pull as curl does: a connection for each request."""
        for target, digest in wanted(name, image):
            connection = http.client.HTTPConnection(*self._address, timeout=LIMIT_S)
            try:
                check(connection, target, digest)
            finally:
                connection.close()

    def _skopeo(self, name: str, image: Image) -> None:
        number = next(self._numbers)
        destination = self._directory / f"pulled-{number}"
        skopeo = Skopeo(self._directory / f"home-{number}", self._lab.pki.ca_file)
        source = f"docker://{self._address}/{REGISTRY}/{name}:latest"
        skopeo.run(["copy", "--src-tls-verify=false", "--retry-times=0", source, f"dir:{destination}"])
        assert sha256((destination / "manifest.json").read_bytes()) == image.digest


class KeptAlive:
    """One connection for many requests.

    Like every HTTP client, it asks again when one that had been used ended without an answer (RFC 9110 section 9.2.2).
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def pull(self, name: str, image: Image) -> None:
        """Pull an image."""
        for target, digest in wanted(name, image):
            used = self._connection is not None
            try:
                self._ask(target, digest)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not used:
                    raise
                self._ask(target, digest)

    def _ask(self, target: str, digest: str) -> None:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=LIMIT_S)
        try:
            if check(self._connection, target, digest):
                self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def wanted(name: str, image: Image) -> Iterator[tuple[str, str]]:
    """Yield what is to be asked for, and what it is."""
    yield f"/v2/{name}/manifests/latest?ns={REGISTRY}", image.digest
    for blob in image.blobs:
        yield f"/v2/{name}/blobs/{blob}?ns={REGISTRY}", blob


def check(connection: http.client.HTTPConnection, target: str, digest: str) -> bool:
    """Ask for something and compare it; whether it was the connection's last answer."""
    connection.request("GET", target, headers={"Accept": MANIFEST})
    with connection.getresponse() as answer:
        body = answer.read()
    assert (answer.status, sha256(body)) == (200, digest), (answer.status, body[:300])
    return answer.will_close


def test_no_pull_fails_when_a_newer_version_comes_and_goes(lab: Lab, build_image: MakeImage, tmp_path: Path) -> None:
    """Both versions run together for a while, there and back, with one bucket; new images come all the time."""
    newer = newer_version(tmp_path)
    images: dict[str, Image] = {}

    def push_more() -> None:
        for _ in range(IMAGES // 6):
            name = f"rolling/{len(images)}"
            image = build_image(name, layer_bytes=1_500_000)
            lab.push(image, name)
            images[name] = image

    with ExitStack() as cleanup:
        weed = cleanup.enter_context(Seaweed(tmp_path / "weed"))
        balancer = cleanup.enter_context(Balancer())
        numbers = itertools.count()

        def replica(command: list[str] | None) -> Proxy:
            proxy = lab.proxy(tmp_path / f"replica-{next(numbers)}", {**SETTINGS, **weed.settings("rolling")})
            proxy.command = command or proxy.command
            cleanup.callback(proxy.close)
            return proxy.start()

        def roll(to: list[str] | None) -> None:
            """Replace each replica: the new one first, and nothing new for the old one before its TERM."""
            for _ in range(2):
                running.append(replica(to))
                balancer.serve([each.address for each in running])
                gone = running.pop(0)
                balancer.serve([each.address for each in running])
                assert gone.stop_within(LIMIT_S) == 0
                assert "were cut" not in gone.log
                logs.append(gone.log)
                push_more()
                clients.go_on()

        push_more()
        logs: list[str] = []
        running = [replica(None), replica(None)]
        balancer.serve([each.address for each in running])
        with Clients(lab, balancer.address, images, tmp_path) as clients:
            clients.go_on()
            roll(newer)
            assert all(VERSION in each.log for each in running)
            assert not any(VERSION in log for log in logs)
            roll(None)
            assert all(VERSION in log for log in logs[2:])

        assert clients.failures == []
        assert any(name.startswith("cache/tags/") for name in names_in(weed.bucket("rolling")))
        logs += [each.log for each in running]
        for word in ("not believed", "Traceback", '"level":"error"', "ignoring the"):
            assert not [line for log in logs for line in log.splitlines() if word in line]


def test_an_older_version_goes_on_with_the_disk_of_a_newer_one(
    lab: Lab, build_image: MakeImage, tmp_path: Path
) -> None:
    """One pod with a volume: to the newer version and back, each finds all that the other has stored."""
    proxy = lab.proxy(tmp_path / "proxy", {**SETTINGS, "MANIFEST_CACHE_PRIMARY_TIME": "1h"})
    versions = {"old": list(proxy.command), "newer": newer_version(tmp_path)}
    image: dict[str, Image] = {}
    with proxy:
        for number, version in enumerate(["old", "newer", "old", "newer"]):
            proxy.stop()
            proxy.command = versions[version]
            proxy.start()
            log = lab.noauth.log.mark()
            for name, pulled in image.items():
                for target, digest in wanted(name, pulled):
                    assert sha256(proxy.request("GET", target, {"Accept": MANIFEST}).body) == digest
            assert log.count(method="GET") == 0
            name = f"rolling/disk-{number}"
            image[name] = build_image(name)
            lab.push(image[name], name)
            for target, digest in wanted(name, image[name]):
                assert sha256(proxy.request("GET", target, {"Accept": MANIFEST}).body) == digest
        proxy.stop()
    for word in ("Traceback", '"level":"error"', "ignoring the"):
        assert not [line for line in proxy.log.splitlines() if word in line]
