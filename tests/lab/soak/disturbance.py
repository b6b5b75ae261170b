"""What happens meanwhile: upstreams stop and start, real clients pull, somebody watches the cache's folder."""

import contextlib
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lab.clients.cell import why_not
from lab.clients.client import Door, Way
from lab.clients.podman import PodmanClient
from lab.lab import Lab
from lab.programs import LabError
from lab.proxy import Proxy
from lab.skopeo import hash_files
from lab.soak.content import HOSTS, SoakContent
from lab.soak.footprint import cache_bytes, content_files

_UP_S = (4.0, 9.0)
_DOWN_S = (0.3, 1.5)
_WATCH_S = 0.5


@dataclass(slots=True)
class Events:
    """What was done, and seen."""

    restarts: int = 0
    pulls: int = 0
    """By real clients, right to the last byte."""
    failed_pulls: int = 0
    """They say that they failed; an upstream was down."""
    podman_pulls: int = 0
    podman_started: int = 0
    slow_pulls: int = 0
    """They took longer than a minute or two, as everything does with 500 clients on two cores."""
    wrong: list[str] = field(default_factory=list)
    evictions: int = 0
    """Contents that went between two looks: fewer than there were."""
    most_cache_bytes: int = 0


class Disturbance:
    """Runs in threads while its context is open. Every upstream is up when it is closed."""

    def __init__(self, lab: Lab, proxy: Proxy, content: SoakContent, directory: Path) -> None:
        self._lab = lab
        self._proxy = proxy
        self._content = content
        self._directory = directory
        self._ended = threading.Event()
        self.events = Events()

    @contextlib.contextmanager
    def going_on(self, seed: str, *, with_podman: bool) -> Iterator[None]:
        """Disturb until the context ends; what a thread raises is raised here."""
        self._ended.clear()
        jobs: Sequence[Callable[[random.Random], None]] = [self._restart, self._pull, self._watch]
        jobs = [*jobs, self._pull_with_podman] if with_podman and why_not() is None else jobs
        with ThreadPoolExecutor(len(jobs)) as pool:
            running = [pool.submit(job, random.Random(f"{seed} {job.__name__}")) for job in jobs]  # noqa: S311
            try:
                yield
            finally:
                self._ended.set()
            for each in running:
                each.result()

    def _restart(self, chance: random.Random) -> None:
        upstreams = (self._lab.noauth, self._lab.redirect, self._lab.hub, self._lab.cdn)
        while not self._ended.wait(chance.uniform(*_UP_S)):
            upstream = chance.choice(upstreams)
            upstream.stop()
            try:
                time.sleep(chance.uniform(*_DOWN_S))
            finally:
                upstream.start()
            self.events.restarts += 1

    def _pull(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            self.pull_one(chance.choice(HOSTS[:2]), chance.randrange(len(self._content.images)))

    def pull_one(self, host: str, which: int) -> None:
        """Pull an image with skopeo, and look at it if skopeo is content."""
        target = self._directory / "skopeo"
        try:
            reference = f"{host}/{self._content.references[which]}"
            done = self._proxy.skopeo("soak-skopeo").pull(reference, target, check=False)
            self._judge(done.returncode, target, which)
        except subprocess.TimeoutExpired:
            self.events.slow_pulls += 1
        shutil.rmtree(target, ignore_errors=True)

    def _judge(self, exit_code: int, target: Path, which: int) -> None:
        image = self._content.images[which]
        wanted = {digest.removeprefix("sha256:") for digest in (image.digest, *image.blobs)}
        if exit_code != 0:
            self.events.failed_pulls += 1
        elif wanted <= set(hash_files(target).values()):
            self.events.pulls += 1
        else:
            self.events.wrong.append(f"skopeo got another {self._content.references[which]}")

    def _pull_with_podman(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            which = chance.randrange(len(self._content.images))
            reference = f"{HOSTS[0]}/{self._content.references[which]}"
            self.events.podman_started += 1
            way = Way(self._proxy.address, (self._proxy.ca_file,), chance.choice(list(Door)))
            client = PodmanClient(self._directory / f"p{self.events.podman_started}", way)
            try:
                if client.pull(reference).returncode != 0:
                    self.events.failed_pulls += 1
                    continue
                client.check(reference, self._content.images[which])
                self.events.podman_pulls += 1
            except subprocess.TimeoutExpired:
                self.events.slow_pulls += 1
            except (AssertionError, LabError) as error:
                self.events.wrong.append(f"podman, {reference}: {error}")
            finally:
                client.close()

    def _watch(self, _: random.Random) -> None:
        before: set[str] = set()
        while not self._ended.wait(_WATCH_S):
            now = content_files(self._proxy.cache_directory)
            self.events.evictions += len(before - now)
            self.events.most_cache_bytes = max(self.events.most_cache_bytes, cache_bytes(self._proxy.cache_directory))
            before = now
