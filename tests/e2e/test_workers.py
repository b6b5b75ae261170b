"""Several workers are one proxy: one upstream request, one cache under one cap, and a worker's death is its own."""

import hashlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import pytest

from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from lab.workers import is_looked_after, one_connection_each, worker_pids

pytestmark = pytest.mark.e2e

WORKERS = 3
CAP_BYTES = 20_000_000
OUTSIDE_THE_CAP_BYTES = 4 * 1024 * 1024
"""SQLite's log, directories, sidecars: `store.eviction`."""
ORIGIN = "origin.lab.test"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy of several workers for this file."""
    settings = {
        "WORKERS": str(WORKERS),
        "CACHE_MAX_SIZE": str(CAP_BYTES),
        "NOT_FOUND_TIME": "60s",
        "DRAIN_TIMEOUT": "0s",
        "ENABLE_MANIFEST_CACHE": "true",
    }
    with lab.proxy(tmp_path_factory.mktemp("workers"), settings) as running:
        worker_pids(running, WORKERS)
        yield running
        sys.stdout.write(running.log)


def make_blob(size_bytes: int) -> tuple[bytes, str]:
    """Return pseudo-random bytes that no other call returns, and the path of their blob."""
    body = b"".join(random_chunks(f"workers {next(_numbers)}", size_bytes))
    return body, f"/v2/app/blobs/sha256:{hashlib.sha256(body).hexdigest()}"


def through(path: str) -> str:
    """Return the path by which a mirror client asks for it."""
    return f"/v2/{ORIGIN}{path.removeprefix('/v2')}"


def ask(connection: HTTPConnection, path: str, method: str = "GET") -> HTTPResponse:
    connection.request(method, through(path), headers={"Accept": MANIFEST_TYPE})
    return connection.getresponse()


def got(connection: HTTPConnection, path: str, method: str = "GET") -> tuple[int, bytes]:
    with ask(connection, path, method) as response:
        return response.status, response.read()


def got_anew(proxy: Proxy, path: str) -> tuple[int, bytes]:
    """Ask on a connection of its own, which any worker may accept."""
    with closing(HTTPConnection(*proxy.address, timeout=60)) as connection:
        return got(connection, path)


def disk_bytes(proxy: Proxy) -> int:
    """Return what the cache takes on its disk."""
    taken_bytes = 0
    for path in proxy.cache_directory.rglob("*"):
        with suppress(FileNotFoundError):
            taken_bytes += path.lstat().st_blocks * 512
    return taken_bytes


def make_manifest() -> Reply:
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "number": next(_numbers)}).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return Reply(body, headers={"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": digest})


def make_tag() -> str:
    return f"/v2/app/manifests/1.2.{next(_numbers)}"


def is_stopped(pid: int) -> bool:
    """Whether a process does nothing until it is told to go on (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = 60) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)


class TestOneProxy:
    def test_one_fetch_for_all_clients_of_all_workers(self, proxy: Proxy, origin: Origin) -> None:
        """Clients of three workers ask for a blob at once: the registry is asked once, and all have every byte."""
        body, path = make_blob(3_000_000)
        gate = Gate()
        origin.serve(path, Reply(body, hold_after_bytes=1_000_000, gate=gate))
        with one_connection_each(proxy, WORKERS) as connections, ThreadPoolExecutor(9) as clients:
            answers = [clients.submit(got, each, path) for each in connections.values()]
            answers += [clients.submit(got_anew, proxy, path) for _ in range(6)]
            wait_until(lambda: origin.log.count() > 0, "the registry is asked")
            gate.open()
            assert [each.result() for each in answers] == [(200, body)] * 9
        assert [request.method for request in origin.log.requests()] == ["GET"]

    def test_a_follower_does_not_wait_for_the_end(self, proxy: Proxy, origin: Origin) -> None:
        """A client of another worker gets the bytes that are there while the download is held up."""
        body, path = make_blob(3_000_000)
        gate = Gate()
        origin.serve(path, Reply(body, hold_after_bytes=2_000_000, gate=gate))
        with one_connection_each(proxy, WORKERS) as connections:
            first, second, _ = connections.values()
            with ask(first, path) as one, ask(second, path) as other:
                assert one.read(1_500_000) == body[:1_500_000]
                assert other.read(1_500_000) == body[:1_500_000]
                gate.open()
                assert one.read() == other.read() == body[1_500_000:]

    def test_what_one_has_stored_is_a_hit_for_all(self, proxy: Proxy, origin: Origin) -> None:
        """Blob and tag come from the store at the other workers, with no request upstream."""
        body, path = make_blob(100_000)
        manifest, tag = make_manifest(), make_tag()
        origin.serve(path, Reply(body))
        origin.serve(tag, manifest)
        with one_connection_each(proxy, WORKERS) as connections:
            first, *others = connections.values()
            assert (got(first, path), got(first, tag)) == ((200, body), (200, manifest.body))
            mark = origin.log.mark()
            for each in others:
                assert (got(each, path), got(each, tag)) == ((200, body), (200, manifest.body))
        assert mark.count() == 0

    def test_a_tag_is_asked_for_by_one_worker_at_a_time(self, proxy: Proxy, origin: Origin) -> None:
        """Clients of all workers ask for a tag at once: one GET; after its time is over, one HEAD."""
        manifest, tag = replace(make_manifest(), rate_bytes_per_s=200), make_tag()
        origin.serve(tag, manifest)
        with one_connection_each(proxy, WORKERS) as connections, ThreadPoolExecutor(WORKERS) as clients:
            answers = list(clients.map(lambda each: got(each, tag), connections.values()))
        assert answers == [(200, manifest.body)] * WORKERS
        assert [request.method for request in origin.log.requests()] == ["GET"]

    def test_a_moved_tag_is_old_for_nobody(self, proxy: Proxy, origin: Origin) -> None:
        """One client insists on a new answer: once it has it, no other worker serves the old one from its memory."""
        tag, before, after = make_tag(), make_manifest(), make_manifest()
        origin.serve(tag, before)
        with one_connection_each(proxy, WORKERS) as connections:
            for each in [*connections.values(), *connections.values()]:
                assert got(each, tag) == (200, before.body)
            origin.serve(tag, after)
            first, *others = connections.values()
            first.request("GET", through(tag), headers={"Accept": MANIFEST_TYPE, "Cache-Control": "no-cache"})
            with first.getresponse() as response:
                assert response.read() == after.body
            for each in others:
                assert got(each, tag) == (200, after.body)

    def test_what_a_registry_has_not_is_known_to_all(self, proxy: Proxy, origin: Origin) -> None:
        """A 404 that one worker got is the answer of the others, without a request upstream."""
        tag = make_tag()
        origin.serve(tag, Reply(b"{}", 404, headers={"Content-Type": "application/json"}))
        with one_connection_each(proxy, WORKERS) as connections:
            first, *others = connections.values()
            assert got(first, tag)[0] == 404
            asked = origin.log.count()
            for each in others:
                wait_until(lambda each=each: got(each, tag)[0] == 404, "the 404")  # type: ignore[misc]
            assert origin.log.count() <= asked + len(others)  # the word may be on its way still
            asked = origin.log.count()
            for each in connections.values():
                assert got(each, tag)[0] == 404
        assert origin.log.count() == asked

    def test_one_breaker_for_all(self, proxy: Proxy, origin: Origin) -> None:
        """A registry that gave one worker no answer is not waited for by the others: they serve what is stored."""
        manifest, tag = make_manifest(), make_tag().replace("1.2", "latest-1.2")
        origin.serve(tag, manifest)
        with one_connection_each(proxy, WORKERS) as connections:
            for each in connections.values():
                assert got(each, tag) == (200, manifest.body)
            origin.stop()
            for each in connections.values():
                each.request("GET", through(tag), headers={"Accept": MANIFEST_TYPE, "Cache-Control": "no-cache"})
                with each.getresponse() as response:
                    assert response.read() == manifest.body
            said = f"https://{origin.name}"
            assert proxy.log.count("what is stored is served without asking") == 1, said

    def test_a_right_that_is_taken_back_counts_at_no_worker(self, proxy: Proxy, origin: Origin) -> None:
        """A registry refuses a repository to one worker; the others have served it from memory, and do not any more."""
        body, path = make_blob(50_000)
        repository = f"private{next(_numbers)}"
        path = path.replace("/app/", f"/{repository}/")
        tag = f"/v2/{repository}/manifests/latest"
        origin.serve(path, Reply(body))
        origin.serve(tag, make_manifest())
        with one_connection_each(proxy, WORKERS) as connections:
            first, *others = connections.values()
            for each in [first, *others, first, *others]:
                assert got(each, path) == (200, body)
            refusal = Reply(b"{}", 401, headers={"WWW-Authenticate": 'Basic realm="lab"'})
            origin.serve(path, refusal)
            origin.serve(tag, refusal)
            assert got(first, tag)[0] == 403  # the mirror door's form of it
            assert [got(each, path)[0] for each in others] == [403] * len(others)

    def test_one_cap_for_all(self, proxy: Proxy, origin: Origin) -> None:
        """More is pulled through all workers at once than the cache may hold: it holds, and all clients get it all."""
        blobs = [make_blob(2_000_000) for _ in range(15)]
        for body, path in blobs:
            origin.serve(path, Reply(body))
        with ThreadPoolExecutor(5) as clients:
            answers = [clients.submit(got_anew, proxy, path) for _, path in blobs]
            most_bytes = 0
            while not all(each.done() for each in answers):
                most_bytes = max(most_bytes, disk_bytes(proxy))
                time.sleep(0.02)
        assert [each.result() for each in answers] == [(200, body) for body, _ in blobs]
        assert CAP_BYTES // 2 < most_bytes <= CAP_BYTES + OUTSIDE_THE_CAP_BYTES


class TestDeath:
    @pytest.mark.parametrize(
        "end", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["killed", "told to end"]
    )
    def test_a_download_outlives_its_worker(self, proxy: Proxy, origin: Origin, end: signal.Signals) -> None:
        """The worker that fetches ends: clients of others get every byte, its own is cut and succeeds anew."""
        body, path = make_blob(6_000_000)
        gate = Gate()
        origin.serve(path, Reply(body, etag='"one"', hold_after_bytes=4_000_000, gate=gate))
        with one_connection_each(proxy, WORKERS) as connections:
            (victim, cut), (_, second), (_, third) = connections.items()
            with ask(cut, path) as lost, ask(second, path) as one, ask(third, path) as other:
                assert lost.read(3_000_000) == one.read(3_000_000) == other.read(3_000_000) == body[:3_000_000]
                os.kill(victim, end)
                wait_until(lambda: victim not in proxy.pids(), "the worker is gone")
                gate.open()
                with pytest.raises((HTTPException, OSError)):
                    lost.read()
                assert one.read() == other.read() == body[3_000_000:]
            assert got_anew(proxy, path) == (200, body)
        assert victim not in worker_pids(proxy, WORKERS)
        ranges = [request.range for request in origin.log.requests()]
        assert len(ranges) == 2, ranges
        assert int(ranges[1].removeprefix("bytes=").partition("-")[0]) >= 3_000_000

    def test_who_waits_to_be_let_in_is_not_cut(self, proxy: Proxy, origin: Origin) -> None:
        """200 clients come while no worker has time, and a worker is killed: the kernel cuts none of them off."""
        body, path = make_blob(10_000)
        origin.serve(path, Reply(body))
        assert got_anew(proxy, path) == (200, body)
        victim, *others = worker_pids(proxy, WORKERS)
        with ExitStack() as cleanup:
            for pid in (victim, *others):
                os.kill(pid, signal.SIGSTOP)
            for pid in others:
                cleanup.callback(os.kill, pid, signal.SIGCONT)
            wait_until(lambda: all(is_stopped(pid) for pid in (victim, *others)), "they have stopped")
            clients = [HTTPConnection(*proxy.address, timeout=60) for _ in range(200)]
            for each in clients:
                each.request("GET", through(path))
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in proxy.pids(), "the worker is gone")
        for each in clients:
            with closing(each), each.getresponse() as response:
                assert (response.status, response.read()) == (200, body)

    def test_a_worker_that_dies_is_replaced(self, proxy: Proxy, origin: Origin) -> None:
        """Whichever worker dies, so many serve again, and know what is stored."""
        body, path = make_blob(100_000)
        origin.serve(path, Reply(body))
        assert got_anew(proxy, path) == (200, body)
        victim = worker_pids(proxy, WORKERS)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in proxy.pids(), "the worker is gone")
        with one_connection_each(proxy, WORKERS) as connections:
            assert victim not in connections
            assert [got(each, path) for each in connections.values()] == [(200, body)] * WORKERS
        assert origin.log.count() == 1


class TestEnd:
    def test_term_ends_all(self, proxy: Proxy) -> None:
        """Exit code 0, and no process is left; what was promised of the cache holds: nothing is in doubt."""
        worker_pids(proxy, WORKERS)
        wait_until(lambda: is_looked_after(proxy), "what dead workers have left is looked for")
        assert proxy.stop() == 0
        assert not (proxy.cache_directory / "running").exists()
