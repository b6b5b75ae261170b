"""Several workers are one proxy: one upstream request, one cache under one cap, and a worker's death is its own."""

import hashlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPResponse

import pytest

from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from lab.workers import one_connection_each, supervisor_pid, worker_pids

pytestmark = pytest.mark.e2e

WORKERS = 3
ORIGIN = "origin.lab.test"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy of several workers for this file."""
    settings = {"WORKERS": str(WORKERS), "NOT_FOUND_TIME": "60s", "ENABLE_MANIFEST_CACHE": "true"}
    with lab.proxy(tmp_path_factory.mktemp("workers"), settings) as running:
        worker_pids(running, WORKERS)
        yield running
        print(running.log)


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
            more = [HTTPConnection(*proxy.address, timeout=60) for _ in range(6)]
            answers += [clients.submit(got, each, path) for each in more]
            wait_until(lambda: origin.log.count() > 0, "the registry is asked")
            gate.open()
            assert [each.result() for each in answers] == [(200, body)] * 9
            for each in more:
                each.close()
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
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "number": next(_numbers)}).encode()
        tag = "/v2/app/manifests/1.2.3"
        origin.serve(path, Reply(body))
        origin.serve(tag, Reply(manifest, headers={"Content-Type": MANIFEST_TYPE}))
        with one_connection_each(proxy, WORKERS) as connections:
            first, *others = connections.values()
            assert (got(first, path), got(first, tag)) == ((200, body), (200, manifest))
            mark = origin.log.mark()
            for each in others:
                assert (got(each, path), got(each, tag)) == ((200, body), (200, manifest))
        assert mark.count() == 0
