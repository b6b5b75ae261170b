"""TERM in the middle of answers: they end, nothing new begins, and it does not take longer than it may."""

import hashlib
import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.fixtures import StartProxy
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from lab.workers import one_connection_each, worker_pids
from regproxy.engine.drain import QUIET_S

pytestmark = pytest.mark.e2e

BODY = b"".join(random_chunks("drain", 6_000_000))
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
PATH = f"/v2/some/image/blobs/{DIGEST}"
HELD_AT_BYTES = 4_000_000
SEEN_BYTES = 3_000_000
LONG = {"DRAIN_TIMEOUT": "60s"}
LIMIT_S = 30.0

type Start = Callable[[Mapping[str, str]], Proxy]


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["one process", "two workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many processes answer."""
    return int(request.param)


@pytest.fixture
def start(start_proxy: StartProxy, workers: int) -> Start:
    """Start a proxy of so many."""

    def start(settings: Mapping[str, str]) -> Proxy:
        proxy = start_proxy({"WORKERS": str(workers), **settings})
        if workers > 1:
            worker_pids(proxy, workers)
        return proxy

    return start


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.02)


def send(proxy: Proxy, number: signal.Signals) -> None:
    """Send a signal to the one process whose number is known outside."""
    os.kill(proxy._program.pid, number)


def refuses(proxy: Proxy) -> bool:
    """Whether nobody listens any more."""
    try:
        with socket.create_connection(proxy.address, timeout=5):
            return False
    except ConnectionResetError:
        return False  # in the moment between the last look for who has got through and the end of the port
    except ConnectionRefusedError:
        return True


def test_a_client_in_the_middle_of_a_blob_gets_all_of_it(start: Start, origin: Origin) -> None:
    """Through the proxy door, of a download: it ends, then the process does; who comes anew is refused."""
    proxy, gate = start(LONG), Gate()
    origin.serve(PATH, Reply(BODY, hold_after_bytes=HELD_AT_BYTES, gate=gate))
    with proxy.client().stream("GET", f"https://{origin.name}{PATH}") as response:
        begin = response.read(SEEN_BYTES)
        send(proxy, signal.SIGTERM)
        wait_until(lambda: refuses(proxy))
        assert proxy.is_running
        gate.open()
        assert begin + response.read() == BODY

    wait_until(lambda: not proxy.is_running)
    assert proxy._program.returncode == 0
    assert "connections were cut" not in proxy.log


def test_what_is_sent_from_the_cache_ends_too(lab: Lab, start: Start) -> None:
    """Of a stored blob, by the mirror door and the proxy door, to clients that read slowly."""
    proxy = start(LONG)
    chunks = b"".join(random_chunks("drain warm", 32_000_000))
    digest = lab.storage.add_blob("library/drain", [chunks])
    target = f"/v2/library/drain/blobs/{digest}"
    assert proxy.request("GET", f"{target}?ns={lab.noauth.name}").body == chunks
    mirror = http.client.HTTPConnection(*proxy.address, timeout=LIMIT_S)
    mirror.request("GET", f"{target}?ns={lab.noauth.name}")
    with (
        proxy.client().stream("GET", f"https://{lab.noauth.name}{target}") as by_proxy,
        mirror.getresponse() as by_mirror,
    ):
        starts = by_proxy.read(1), by_mirror.read(1)
        send(proxy, signal.SIGTERM)
        wait_until(lambda: refuses(proxy))
        assert starts[0] + by_proxy.read() == chunks
        assert starts[1] + by_mirror.read() == chunks
    mirror.close()
    wait_until(lambda: not proxy.is_running)
    assert proxy._program.returncode == 0


def test_readiness_says_so_and_each_answer_is_the_last_of_its_connection(start: Start, origin: Origin) -> None:
    """While one client is served, another that is connected is told to go elsewhere."""
    proxy, gate = start(LONG), Gate()
    origin.serve(PATH, Reply(BODY, hold_after_bytes=HELD_AT_BYTES, gate=gate))
    connections = [http.client.HTTPConnection(*proxy.address, timeout=LIMIT_S) for _ in range(4)]
    answers: list[tuple[int, bytes, str | None]] = []
    with proxy.client().stream("GET", f"https://{origin.name}{PATH}") as response:
        response.read(SEEN_BYTES)
        for connection in connections:
            connection.connect()
        send(proxy, signal.SIGTERM)
        while connections:  # in turn, for one that is quiet is closed
            connection = connections.pop(0)
            connection.request("GET", "/readyz")
            with connection.getresponse() as answer:
                answers.append((answer.status, answer.read(), answer.headers["Connection"]))
            if answers[-1][2] is None:
                connections.append(connection)
            else:
                connection.close()
        gate.open()
        response.read()

    last = (503, b"ending\n", "close")
    assert last in answers
    # TERM may come between an answer and its fields about the connection.
    assert set(answers) <= {last, (200, b"ready\n", None), (200, b"ready\n", "close")}


def test_who_was_let_in_by_the_kernel_is_answered(start: Start) -> None:
    """Connections that nobody has accepted when TERM comes: closing the port alone would reset them."""
    proxy = start(LONG)
    stopped = proxy.pids()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    waiting = [socket.create_connection(proxy.address, timeout=LIMIT_S) for _ in range(20)]
    for each in waiting:
        each.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    send(proxy, signal.SIGTERM)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    with ThreadPoolExecutor(len(waiting)) as threads:
        answers = list(threads.map(lambda each: each.recv(1000), waiting))
    for each in waiting:
        each.close()

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    wait_until(lambda: not proxy.is_running)


@pytest.mark.parametrize("end", ["its time", "another TERM", "INT"])
def test_it_does_not_wait_for_ever(start: Start, origin: Origin, end: str) -> None:
    """What is over the limit is cut, and said; another TERM, or INT, ends it at once."""
    proxy = start({"DRAIN_TIMEOUT": "500ms" if end == "its time" else "300s"})
    origin.serve(PATH, Reply(BODY, hold_after_bytes=HELD_AT_BYTES))
    with proxy.client().stream("GET", f"https://{origin.name}{PATH}") as response:
        response.read(SEEN_BYTES)
        send(proxy, signal.SIGTERM)
        wait_until(lambda: refuses(proxy))
        if end != "its time":
            assert proxy.is_running
            send(proxy, signal.SIGINT if end == "INT" else signal.SIGTERM)
        wait_until(lambda: not proxy.is_running)
        with pytest.raises((http.client.IncompleteRead, OSError)):
            response.read()

    assert proxy._program.returncode == 0
    assert ("connections were cut" in proxy.log) is (end == "its time")


def test_a_worker_that_others_follow_is_waited_for(start_proxy: StartProxy, origin: Origin) -> None:
    """The one that fetches has no client any more, the client of another reads what it fetches: it is fetched once."""
    proxy, gate = start_proxy({"WORKERS": "2", **LONG}), Gate()
    origin.serve(PATH, Reply(BODY, hold_after_bytes=HELD_AT_BYTES, gate=gate))
    with one_connection_each(proxy, 2) as connections:
        (fetching, first), (_, second) = connections.items()
        target = f"/v2/{origin.name}{PATH.removeprefix('/v2')}"
        first.request("GET", target)
        answer = first.getresponse()
        answer.read(SEEN_BYTES)
        second.request("GET", target)
        with second.getresponse() as response:
            begin = response.read(SEEN_BYTES)
            answer.close()
            first.close()
            send(proxy, signal.SIGTERM)
            wait_until(lambda: refuses(proxy))
            time.sleep(2 * QUIET_S)  # what has nothing to do has ended by then
            assert fetching in proxy.pids()
            gate.open()
            assert begin + response.read() == BODY

    wait_until(lambda: not proxy.is_running)
    assert proxy._program.returncode == 0
    assert [request.method for request in origin.log.requests()] == ["GET"]
