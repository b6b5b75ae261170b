"""Whichever worker is asked, the answer is of the whole proxy: metrics, the admin API, the dashboard, limits."""

import hashlib
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from lab.wait import wait_until
from lab.workers import one_connection_each, worker_of, worker_pids

pytestmark = pytest.mark.e2e

WORKERS = 3
API = "/_proxy/api/v1"
ORIGIN = "origin.lab.test"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy of several workers for this file."""
    settings = {"WORKERS": str(WORKERS), "ENABLE_MANIFEST_CACHE": "true", "MAX_CONNECTIONS_PER_CLIENT": "40"}
    with lab.proxy(tmp_path_factory.mktemp("crew"), settings) as running:
        worker_pids(running, WORKERS)
        yield running
        sys.stdout.write(running.log)


def ask(connection: HTTPConnection, method: str, path: str, body: bytes | None = None, **query: str) -> Any:
    """Return what the admin API answers on a connection, hence at one worker."""
    connection.request(method, f"{API}{path}{'?' * bool(query)}{urlencode(query)}", body)
    with connection.getresponse() as response:
        told = json.loads(response.read())
        assert response.status == 200, told
        return told


def got(connection: HTTPConnection, path: str) -> tuple[int, bytes]:
    """Return the answer to a mirror client."""
    connection.request("GET", f"/v2/{ORIGIN}{path.removeprefix('/v2')}", headers={"Accept": MANIFEST_TYPE})
    with connection.getresponse() as response:
        return response.status, response.read()


def page(connection: HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    with connection.getresponse() as response:
        assert response.status == 200
        return response.read().decode()


def make_blob(size_bytes: int) -> tuple[bytes, str]:
    body = b"".join(random_chunks(f"crew {next(_numbers)}", size_bytes))
    return body, f"sha256:{hashlib.sha256(body).hexdigest()}"


def make_image(origin: Origin) -> tuple[str, str]:
    """Serve a small image; return its repository and its layer's digest."""
    name = f"crew{next(_numbers)}"
    layer, layer_digest = make_blob(30_000)
    config, config_digest = b"{}" + b" " * next(_numbers), ""
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer_digest,
                    "size": len(layer),
                }
            ],
        }
    ).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    reply = Reply(manifest, headers={"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": digest})
    for path in ("manifests/1.0", f"manifests/{digest}"):
        origin.serve(f"/v2/{name}/{path}", reply)
    origin.serve(f"/v2/{name}/blobs/{layer_digest}", Reply(layer))
    origin.serve(f"/v2/{name}/blobs/{config_digest}", Reply(config))
    return name, layer_digest


def sample(text: str, pattern: str) -> float:
    """Return the sum of the samples of a metric that match."""
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))


class TestCounts:
    def test_metrics_are_of_the_whole(self, proxy: Proxy, origin: Origin) -> None:
        """One pull at each worker; each worker tells of all, and what the cache takes once."""
        body, digest = make_blob(200_000)
        origin.serve(f"/v2/app/blobs/{digest}", Reply(body))
        pattern = r"registry_proxy_requests_total\{.*HIT"

        def hits(connection: HTTPConnection) -> float:
            return sample(page(connection, "/metrics"), pattern)

        with one_connection_each(proxy, WORKERS) as connections:
            first = next(iter(connections.values()))
            assert got(first, f"/v2/app/blobs/{digest}") == (200, body)
            wait_until(lambda: ask(first, "GET", "/status")["ingests"] == [], "it is stored")
            before = hits(first)
            for connection in [*connections.values()] * 2:
                assert got(connection, f"/v2/app/blobs/{digest}") == (200, body)
            for connection in connections.values():
                wait_until(
                    lambda connection=connection: hits(connection) == before + 2 * WORKERS,  # type: ignore[misc]
                    "the hits of all workers",
                )
                text = page(connection, "/metrics")
                assert sample(text, "registry_proxy_active_clients ") == 1
                assert sample(text, "process_resident_memory_bytes ") > WORKERS * 50_000_000
                assert sample(text, "process_cpu_seconds_total ") > 0
                taken = sample(text, r'registry_proxy_cache_bytes\{kind="content"\}')
                assert taken == ask(connection, "GET", "/status")["cache"]["content_bytes"] < 2 * 200_000 + 1_000_000

    @pytest.mark.slow
    def test_counts_of_a_dead_worker_stay(self, proxy: Proxy, origin: Origin) -> None:
        """Requests that it has answered count on, in the metrics and for operators; its downloads under way do not."""
        body, digest = make_blob(20_000)
        path = f"/v2/app/blobs/{digest}"
        origin.serve(path, Reply(body))
        with one_connection_each(proxy, WORKERS) as connections:
            *_, (victim, connection) = connections.items()
            assert got(connection, path) == (200, body)
            other = next(iter(connections.values()))
            total = ask(other, "GET", "/status")["requests"]["total"]
            counted = sample(page(other, "/metrics"), "registry_proxy_requests_total")
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in proxy.pids(), "the worker is gone")
            assert ask(other, "GET", "/status")["requests"]["total"] == total
            assert sample(page(other, "/metrics"), "registry_proxy_requests_total") == counted
        worker_pids(proxy, WORKERS)

    def test_the_dashboard_is_of_the_whole(self, proxy: Proxy, origin: Origin) -> None:
        """Each worker shows the reads of all, a download that two of them wait for once, and both clients."""
        body, digest = make_blob(3_000_000)
        gate = Gate()
        origin.serve(f"/v2/busy/app/blobs/{digest}", Reply(body, hold_after_bytes=1_000_000, gate=gate))
        with one_connection_each(proxy, WORKERS) as connections:
            one, two, three = connections.values()
            for each in (one, two):
                each.request("GET", f"/v2/{ORIGIN}/busy/app/blobs/{digest}")

            def downloads() -> list[Any]:
                told = json.loads(page(three, "/_proxy/dashboard.json"))
                return [(each["digest"], each["waiting"]) for each in told["downloads"]]

            wait_until(lambda: downloads() == [(digest, 2)], "a download with two who wait")
            assert [each["digest"] for each in ask(three, "GET", "/status")["ingests"]] == [digest]
            gate.open()
            for each in (one, two):
                with each.getresponse() as response:
                    assert response.read() == body
            for each in (one, two, three):
                wait_until(
                    lambda each=each: any(  # type: ignore[misc]
                        (image["image"], image["requests"]) == ("busy/app", 2)
                        for image in json.loads(page(each, "/_proxy/dashboard.json"))["images"]
                    ),
                    "the reads of both",
                )


class TestOperators:
    def test_the_status_names_the_workers(self, proxy: Proxy) -> None:
        """Whoever answers: all of them, with their process ids."""
        with one_connection_each(proxy, WORKERS) as connections:
            for connection in connections.values():
                workers = ask(connection, "GET", "/status")["workers"]
                assert [each["number"] for each in workers] == [1, 2, 3]
                assert {each["pid"] for each in workers} == set(connections)

    def test_why_knows_the_requests_of_all(self, proxy: Proxy, origin: Origin) -> None:
        """Each worker has answered one; each tells of all, and of each by its id; who watches misses none."""
        name, _ = make_image(origin)
        with one_connection_each(proxy, WORKERS) as connections:
            first, *_ = connections.values()
            newest = ask(first, "GET", "/requests")["newest"]
            for connection in connections.values():
                assert got(connection, f"/v2/{name}/manifests/1.0")[0] == 200
            for connection in connections.values():
                told = ask(connection, "GET", "/why", subject=f"{ORIGIN}/{name}:1.0")
                assert len(told["requests"]) == WORKERS
                request_id = told["requests"][-1]["request_id"]
                assert ask(connection, "GET", "/why", subject=request_id)["request"]["repository"] == name
            last = ask(first, "GET", "/requests", last=str(WORKERS))["requests"]
            assert [each["repository"] for each in last] == [name] * WORKERS
            seen: list[str] = []
            for connection in itertools.cycle(connections.values()):
                told = ask(connection, "GET", "/requests", after=str(newest), wait="2s")
                seen += [each["repository"] for each in told["requests"]]
                newest = told["newest"]
                if not told["requests"]:
                    break
            assert seen.count(name) == WORKERS

    def test_a_drill_is_one_at_all_workers(self, proxy: Proxy, origin: Origin) -> None:
        """It is begun at one worker and holds at all of them at once; what came of it is told as one."""
        name, layer = make_image(origin)
        with one_connection_each(proxy, WORKERS) as connections:
            one, two, three = connections.values()
            assert got(one, f"/v2/{name}/manifests/1.0")[0] == 200
            ask(two, "POST", "/drills", target=ORIGIN, clients="127.0.0.0/8", duration="60s")
            for connection in connections.values():
                assert got(connection, f"/v2/{name}/blobs/{layer}")[0] >= 500
            told = ask(three, "GET", "/drills")["drills"][0]
            assert (told["failed"], [each["times"] for each in told["failures"]]) == (WORKERS, [WORKERS])
            assert not ask(one, "DELETE", "/drills", target=ORIGIN)["drills"][0]["under_way"]
            for connection in connections.values():
                assert got(connection, f"/v2/{name}/blobs/{layer}")[0] == 200

    def test_what_one_has_begun_all_can_follow(self, proxy: Proxy, origin: Origin) -> None:
        """An image is warmed by way of one worker; how far it is, and that it is stored, the others know."""
        name, _ = make_image(origin)
        with one_connection_each(proxy, WORKERS) as connections:
            one, *others = connections.values()
            ask(one, "POST", "/warmings", target=f"{ORIGIN}/{name}:1.0")
            for connection in others:
                wait_until(
                    lambda connection=connection: (  # type: ignore[misc]
                        ask(connection, "GET", "/warmings")["images"][0]["state"] == "done"
                    ),
                    "the image is warm",
                )
                (image,) = ask(connection, "GET", "/images", target=f"{ORIGIN}/{name}")["images"]
                assert image["complete"]

    def test_a_purged_image_is_gone_at_all_workers(self, proxy: Proxy, origin: Origin) -> None:
        """Each had it in memory; none serves it after the answer to the purge."""
        name, _ = make_image(origin)
        with one_connection_each(proxy, WORKERS) as connections:
            for connection in [*connections.values()] * 2:
                assert got(connection, f"/v2/{name}/manifests/1.0")[0] == 200
            one, *others = connections.values()
            ask(one, "POST", "/purge", target=f"{ORIGIN}/{name}")
            mark = origin.log.mark()
            for connection in others:
                assert got(connection, f"/v2/{name}/manifests/1.0")[0] == 200
            assert mark.count() > 0

    def test_pieces_of_an_upload_come_to_different_workers(self, proxy: Proxy) -> None:
        """Each piece on a connection of another worker: the blob is whole, and stored."""
        body, digest = make_blob(9_000_000)
        pieces = [body[at : at + 3_000_000] for at in range(0, len(body), 3_000_000)]
        with one_connection_each(proxy, WORKERS) as connections:
            offset = 0
            for connection, piece in zip(connections.values(), pieces, strict=True):
                query = {"digest": digest, "size_bytes": str(len(body)), "offset": str(offset)}
                told = ask(connection, "PUT", "/content", piece, **query)
                offset = told["received_bytes"]
            assert (offset, told["stored"]) == (len(body), True)
            for connection in connections.values():
                connection.request("GET", f"{API}/content?digest={digest}")
                with connection.getresponse() as response:
                    assert response.read() == body

    def test_an_image_is_imported_by_way_of_all_workers(self, proxy: Proxy, origin: Origin) -> None:
        """Blobs, manifest and tag come to different workers; no registry is asked, and a pull through each finds it."""
        name = f"imported{next(_numbers)}"
        blob, digest = make_blob(20_000)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(blob)},
                "layers": [],
            }
        ).encode()
        manifest_digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        target = f"{ORIGIN}/{name}"
        with one_connection_each(proxy, WORKERS) as connections:
            one, two, three = connections.values()
            size = {"digest": digest, "size_bytes": str(len(blob))}
            assert ask(one, "PUT", "/content", None, **size)["received_bytes"] == 0
            assert ask(two, "PUT", "/content", blob, **size, offset="0")["stored"]
            ask(three, "PUT", "/manifests", manifest, target=f"{target}@{manifest_digest}", media_type=MANIFEST_TYPE)
            ask(one, "PUT", "/tags", target=f"{target}:1.2.3", digest=manifest_digest)
            assert origin.log.count() == 0
            for connection in (one, two, three):
                (image,) = ask(connection, "GET", "/images", target=target)["images"]
                assert image["complete"]

    @pytest.mark.slow
    def test_the_desk_passes_on(self, proxy: Proxy) -> None:
        """The worker with the desk is killed while it holds an answer back: the next one answers, and all go on."""
        with one_connection_each(proxy, WORKERS) as connections:
            newest = ask(next(iter(connections.values())), "GET", "/requests")["newest"]
            for victim in list(connections)[:2]:
                rest = {pid: each for pid, each in connections.items() if pid != victim}
                for each in rest.values():
                    each.request("GET", f"{API}/requests?after={newest}&wait=3s")
                os.kill(victim, signal.SIGKILL)
                for each in rest.values():
                    with each.getresponse() as response:
                        assert response.status == 200, response.read()
                        response.read()
                connections.pop(victim).close()
                worker_pids(proxy, WORKERS)
                for each in rest.values():
                    assert len(ask(each, "GET", "/status")["workers"]) == WORKERS


class TestLimits:
    @pytest.mark.slow
    def test_connections_are_counted_over_all_workers(self, proxy: Proxy) -> None:
        """A client's limit is that of all workers together; the connections of a dead worker do not count."""
        refused = 0
        with ExitStack() as cleanup:
            held = []
            for _ in range(60):
                connection = cleanup.enter_context(closing(HTTPConnection(*proxy.address, timeout=30)))
                connection.request("GET", "/metrics")
                with connection.getresponse() as response:
                    response.read()
                    refused += response.status == 503
                    held.append((connection, response.status))
            assert refused == 20
            victim = next(worker_of(proxy, each) for each, status in held if status == 200)
            os.kill(victim, signal.SIGKILL)
            worker_pids(proxy, WORKERS)

            def is_let_in() -> bool:
                with closing(HTTPConnection(*proxy.address, timeout=30)) as connection:
                    connection.request("GET", "/metrics")
                    with connection.getresponse() as response:
                        response.read()
                        return response.status == 200

            wait_until(is_let_in, "there is room again")


class TestIndex:
    def test_the_index_is_removed_under_the_workers(self, proxy: Proxy, origin: Origin) -> None:
        """Pins stay, and what is stored is known again to all; pulls go on all the time."""
        name, layer = make_image(origin)
        with one_connection_each(proxy, WORKERS) as connections:
            one, *others = connections.values()
            for path in ("manifests/1.0", f"blobs/{layer}"):
                assert got(one, f"/v2/{name}/{path}")[0] == 200
            ask(one, "PUT", "/pins", target=f"{ORIGIN}/{name}:1.0")
            for suffix in ("", "-wal", "-shm"):
                Path(proxy.cache_directory, f"cache.db{suffix}").unlink(missing_ok=True)
            for connection in others:
                wait_until(
                    lambda connection=connection: (  # type: ignore[misc]
                        ask(connection, "GET", "/pins")["pins"] != [] and (proxy.cache_directory / "cache.db").exists()
                    ),
                    "the pins are there again",
                )
                assert got(connection, f"/v2/{name}/blobs/{layer}")[0] == 200
            assert "Traceback" not in proxy.log


@pytest.mark.slow
def test_the_folder_of_the_metrics_may_be_the_operators_own(lab: Lab, tmp_path: Path) -> None:
    """PROMETHEUS_MULTIPROC_DIR is used as it is, and left; without it there is one in memory that goes at the end."""
    own = tmp_path / "metrics"
    with lab.proxy(tmp_path, {"WORKERS": "2", "PROMETHEUS_MULTIPROC_DIR": str(own)}) as running:
        worker_pids(running, 2)
        with closing(HTTPConnection(*running.address, timeout=30)) as connection:
            assert "registry_proxy_build_info" in page(connection, "/metrics")
    assert list(own.glob("counter_*.db"))
