"""Blobs on real parts: large, broken, wrong, shared, in parts, redirected."""

import contextlib
import hashlib
import http.client
import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lab.addresses import BACKEND_PORT
from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import ProxyRoute, Response
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from lab.raw_http import read_head, tunnelled
from lab.skopeo import hash_files
from lab.workers import settled_rss_bytes
from regproxy.store.growing import HOLD_BACK_BYTES

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
ORIGIN = "origin.lab.test"
EDGE = "edge.lab.test"


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for this file: each test has blobs of its own."""
    with lab.proxy(tmp_path_factory.mktemp("proxy"), {"NOT_FOUND_TIME": "0"}) as running:
        yield running


_numbers = itertools.count()


def make_blob(size_bytes: int = 1_000_000) -> tuple[bytes, str]:
    """Return pseudo-random bytes that no other call returns, and their digest."""
    body = b"".join(random_chunks(f"blob {next(_numbers)}", size_bytes))
    return body, f"sha256:{hashlib.sha256(body).hexdigest()}"


def blob_path(digest: str, repository: str = "app") -> str:
    return f"/v2/{repository}/blobs/{digest}"


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)


def is_stored(proxy: Proxy, digest: str) -> bool:
    hexadecimal = digest.partition(":")[2]
    return any(proxy.cache_directory.glob(f"content/*/*/{hexadecimal}"))


def nothing_of(proxy: Proxy, digest: str) -> bool:
    """Whether neither content nor an unfinished file of a digest is in the cache."""
    return not any(digest.partition(":")[2] in path.name for path in proxy.cache_directory.rglob("*"))


def error_of(answer: Response) -> dict[str, str]:
    """Return the one error of an OCI error answer."""
    (error,) = json.loads(answer.body)["errors"]
    assert isinstance(error, dict)
    return error


class TestLarge:
    @pytest.mark.timeout(400)
    def test_a_gibibyte_costs_no_memory(self, lab: Lab, start_proxy: StartProxy) -> None:
        """A 1 GiB blob, miss then hit: right bytes, and the proxy's memory grows by less than 64 MiB."""
        proxy = start_proxy()
        warm_up = lab.other_storage.add_blob("large/one", random_chunks("warm up", 20 * MIB))
        digest = lab.other_storage.add_blob("large/one", random_chunks("gibibyte", 1024 * MIB))
        url = f"https://{lab.other.name}/v2/large/one/blobs/"
        client = proxy.client()
        try:
            for _ in range(2):
                client.get(url + warm_up)
            before_bytes = highest_bytes = settled_rss_bytes(proxy)
            for _ in ("miss", "hit"):
                hashed, got_bytes = hashlib.sha256(), 0
                with client.stream("GET", url + digest) as response:
                    while piece := response.read(4 * MIB):
                        hashed.update(piece)
                        got_bytes += len(piece)
                        highest_bytes = max(highest_bytes, proxy.rss_bytes())
                assert (got_bytes, f"sha256:{hashed.hexdigest()}") == (1024 * MIB, digest)
                wait_until(lambda: is_stored(proxy, digest), "the blob is stored")
            assert highest_bytes - before_bytes < 64 * MIB, f"grew by {(highest_bytes - before_bytes) / MIB:.1f} MiB"
        finally:
            proxy.kill()
            shutil.rmtree(proxy.cache_directory)
            lab.other_storage.blob_file(digest).unlink()


def cut_when_read(body: bytes, size_bytes: int) -> Reply:
    """Send so many bytes, and cut the connection when the gate is opened: what comes just before a cut may be lost."""
    return Reply(body, etag='"first"', cut_after_bytes=size_bytes, hold_after_bytes=size_bytes, gate=Gate())


def body_through(proxy: Proxy, digest: str, cuts: Sequence[Reply]) -> bytes:
    """Return a blob as a client gets it, who lets each connection to the upstream be cut when it has what that sent."""
    received = b""
    with proxy.client().stream("GET", f"https://{ORIGIN}{blob_path(digest)}") as response:
        for cut in cuts:
            assert cut.cut_after_bytes
            assert cut.gate
            received += response.read(cut.cut_after_bytes)
            cut.gate.open()
        return received + response.read()


class TestBroken:
    def test_a_cut_is_resumed_where_it_was(self, proxy: Proxy, origin: Origin) -> None:
        """Each time the upstream cuts the blob, the proxy asks for what is missing, and the client notices nothing."""
        body, digest = make_blob()
        cuts = [cut_when_read(body, 300_000) for _ in range(2)]
        origin.serve(blob_path(digest), *cuts, Reply(body, etag=cuts[0].etag))
        assert body_through(proxy, digest, cuts) == body
        ranges = [request.range for request in origin.log.requests()]
        assert ranges == ["", "bytes=300000-999999", "bytes=600000-999999"]

    @pytest.mark.parametrize(
        "second",
        [
            pytest.param(lambda body: Reply(body, ranges=False), id="ranges are ignored"),
            pytest.param(lambda body: Reply(body, etag='"changed"'), id="if-range does not match"),
            pytest.param(lambda body: Reply(body, ranges=False, chunked=True), id="chunked"),
        ],
    )
    def test_a_whole_answer_to_a_resumption_is_used(
        self, proxy: Proxy, origin: Origin, second: Callable[[bytes], Reply]
    ) -> None:
        """An upstream that sends everything again is read from its beginning; the client's bytes are right."""
        body, digest = make_blob()
        cut = cut_when_read(body, 300_000)
        origin.serve(blob_path(digest), cut, second(body))
        assert body_through(proxy, digest, [cut]) == body
        assert origin.log.requests()[1].range == "bytes=300000-999999"

    def test_an_upstream_down_for_two_seconds_in_a_body_is_waited_for(self, proxy: Proxy, origin: Origin) -> None:
        """The scripted origin goes away in the middle and comes back 2 s later: one request with Range, right bytes."""
        body, digest = make_blob()
        origin.serve(blob_path(digest), Reply(body, hold_after_bytes=400_000), Reply(body))
        with proxy.client().stream("GET", f"https://{ORIGIN}{blob_path(digest)}") as response:
            first = response.read(400_000)  # hence the proxy has them
            origin.stop()
            time.sleep(2)  # how long the outage lasts, not a wait for something
            origin.start()
            assert first + response.read() == body
        assert origin.log.requests()[-1].range == "bytes=400000-999999"

    def test_a_registry_killed_in_a_layer_is_waited_for(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """A real registry is killed in the middle of a layer and back 2 s later: skopeo's pull succeeds."""
        image = build_image(layers=1, layer_bytes=4_000_000)
        lab.push(image, "library/killed", to=lab.other)
        (layer,) = image.layers
        url = f"https://other.lab.test/v2/library/killed/blobs/{layer}"
        partial = proxy.cache_directory / "partial" / layer.replace(":", "-")
        mark = lab.other.log.mark()
        lab.other.throttle(1_000_000)
        try:
            with ThreadPoolExecutor(1) as pool:
                pull = pool.submit(proxy.skopeo().pull, "other.lab.test/library/killed:latest", tmp_path / "pulled")
                wait_until(lambda: partial.exists() or pull.done(), "skopeo asks for the layer")
                with proxy.client().stream("GET", url) as response:
                    first = response.read(1)
                    lab.other.stop()
                    time.sleep(2)  # how long the outage lasts, not a wait for something
                    lab.other.throttle(None)
                    lab.other.start()
                    assert first + response.read() == image.read(layer)
                assert pull.result().returncode == 0
        finally:
            lab.other.throttle(None)
            lab.other.start()
        assert layer.removeprefix("sha256:") in hash_files(tmp_path / "pulled").values()
        # the request that was cut is not in the log of a registry that was killed
        (resumed,) = mark.requests(method="GET", path_contains=layer)
        assert (resumed.status, resumed.range.partition("-")[0] != "bytes=0") == (206, True)
        assert resumed.range.startswith("bytes=")

    def test_an_upstream_that_stays_down_is_an_error_in_seconds(self, proxy: Proxy) -> None:
        """Without an answer of the upstream the client has no headers yet, and gets an OCI error before it gives up."""
        _, digest = make_blob()
        began_s = time.monotonic()
        answer = proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}")
        assert (answer.status, error_of(answer)["code"]) == (502, "UNAVAILABLE")
        assert time.monotonic() - began_s < 10

    @pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
    def test_a_refusal_is_passed_on(self, proxy: Proxy, origin: Origin, status: int) -> None:
        """What the registry says instead of the blob is what the client gets, and it is asked again the next time."""
        body, digest = make_blob(1000)
        refusal = Reply(b'{"errors":[]}', status, {"Content-Type": "application/json", "Retry-After": "7"})
        origin.serve(blob_path(digest), refusal)
        url = f"https://{ORIGIN}{blob_path(digest)}"
        answer = proxy.client().get(url)
        assert (answer.status, answer.body, answer.header("Retry-After")) == (status, b'{"errors":[]}', "7")
        origin.serve(blob_path(digest), Reply(body))
        assert proxy.client().get(url).body == body


class TestWrong:
    def test_a_cdn_with_wrong_bytes_fails_the_pull_and_leaves_nothing(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The pull fails, nothing is stored, and the next pull from a good CDN works."""
        image = build_image()
        lab.push(image, "library/wrong")
        layer = image.layers[0]
        reference = f"{lab.redirect.name}/library/wrong:latest"
        with lab.storage.corrupted(layer):
            assert proxy.skopeo().pull(reference, tmp_path / "wrong", check=False).returncode != 0
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                proxy.client().get(f"https://{lab.redirect.name}/v2/library/wrong/blobs/{layer}")
        assert nothing_of(proxy, layer)
        proxy.skopeo("again").pull(reference, tmp_path / "right")
        assert layer.removeprefix("sha256:") in hash_files(tmp_path / "right").values()

    @pytest.mark.parametrize("size_bytes", [1, 5000, 16_384, 16_385, 700_000])
    @pytest.mark.parametrize("at", ["first", "last"])
    def test_a_wrong_byte_is_never_a_clean_answer(self, proxy: Proxy, origin: Origin, size_bytes: int, at: str) -> None:
        """An error where all of it is held back; otherwise the connection is cut before its last byte."""
        body, digest = make_blob(size_bytes)
        position = 0 if at == "first" else size_bytes - 1
        wrong = bytearray(body)
        wrong[position] ^= 1
        url = f"https://{ORIGIN}{blob_path(digest)}"
        origin.serve(blob_path(digest), Reply(bytes(wrong)))
        if size_bytes <= HOLD_BACK_BYTES:
            answer = proxy.client().get(url)
            assert (answer.status, "hashes to" in error_of(answer)["message"]) == (502, True)
        else:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                proxy.client().get(url)
        wait_until(lambda: nothing_of(proxy, digest), "nothing is kept")
        origin.serve(blob_path(digest), Reply(body))
        assert proxy.client().get(url).body == body
        wait_until(lambda: is_stored(proxy, digest), "the right one is stored")

    @pytest.mark.parametrize("range_field", ["bytes=0-99", "bytes=-99", "bytes=650000-"])
    def test_a_part_of_wrong_bytes_is_not_stored(self, proxy: Proxy, origin: Origin, range_field: str) -> None:
        """A client that asks for a part of a bad blob makes nothing of it stay."""
        body, digest = make_blob(700_000)
        url = f"https://{ORIGIN}{blob_path(digest)}"
        origin.serve(blob_path(digest), Reply(body[:-1] + b"?"))
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            proxy.client().get(url, {"Range": range_field})
        wait_until(lambda: nothing_of(proxy, digest), "nothing is kept")

    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(Reply(b"wrong" * 1000, chunked=True), id="chunked"),
            pytest.param(Reply(b"x" * 1000, headers={"Content-Encoding": "gzip"}), id="encoded"),
            pytest.param(Reply(b"<html>login</html>", headers={"Content-Type": "text/html"}, chunked=True), id="html"),
        ],
    )
    def test_what_can_be_told_before_the_answer_is_an_error(self, proxy: Proxy, origin: Origin, reply: Reply) -> None:
        """Where no length was promised yet, the client gets an OCI error and not a cut connection."""
        _, digest = make_blob()
        origin.serve(blob_path(digest), reply)
        answer = proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}")
        assert (answer.status, error_of(answer)["code"]) == (502, "UNAVAILABLE")
        assert nothing_of(proxy, digest)

    def test_a_chunked_blob_is_served_and_stored(self, proxy: Proxy, origin: Origin) -> None:
        """An upstream that announces no length gives a complete answer with one."""
        body, digest = make_blob()
        origin.serve(blob_path(digest), Reply(body, chunked=True))
        answer = proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}")
        assert (answer.body == body, answer.header("Content-Length")) == (True, str(len(body)))

    def test_an_empty_blob_is_a_blob(self, proxy: Proxy, origin: Origin) -> None:
        """Zero bytes have a digest like any others, on miss and on hit."""
        body, digest = make_blob(0)
        origin.serve(blob_path(digest), Reply(body))
        for _ in range(2):
            answer = proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}")
            assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "0")
        assert origin.log.count() == 1


class TestShared:
    CLIENTS = 10

    def test_ten_clients_share_one_download_while_it_runs(self, proxy: Proxy, origin: Origin) -> None:
        """One GET upstream for ten clients, each with its first byte before the upstream has sent its last."""
        body, digest = make_blob(2_000_000)
        gate, everyone = Gate(), threading.Barrier(self.CLIENTS + 1, timeout=20)
        origin.serve(blob_path(digest), Reply(body, hold_after_bytes=500_000, gate=gate))

        def pull(_: int) -> str:
            with proxy.client().stream("GET", f"https://{ORIGIN}{blob_path(digest)}") as response:
                first = response.read(1)
                everyone.wait()
                return hashlib.sha256(first + response.read()).hexdigest()

        with ThreadPoolExecutor(self.CLIENTS) as pool:
            pulls = [pool.submit(pull, number) for number in range(self.CLIENTS)]
            everyone.wait()
            (request,) = origin.log.requests()
            assert request.body_bytes <= 500_000
            gate.open()
            assert {pull.result() for pull in pulls} == {digest.removeprefix("sha256:")}
        assert origin.log.count() == 1

    def test_a_client_that_leaves_does_not_stop_the_download(self, proxy: Proxy, origin: Origin) -> None:
        """The only client goes away in the middle: the blob is stored all the same and asked for once."""
        body, digest = make_blob()
        gate = Gate()
        origin.serve(blob_path(digest), Reply(body, hold_after_bytes=500_000, gate=gate))
        url = f"https://{ORIGIN}{blob_path(digest)}"
        with proxy.client().stream("GET", url) as response:
            response.read(1)
        gate.open()
        wait_until(lambda: is_stored(proxy, digest), "the blob is stored")
        assert proxy.client().get(url).body == body
        assert origin.log.count() == 1

    def test_a_digest_is_downloaded_once_for_all_repositories_and_registries(self, lab: Lab, proxy: Proxy) -> None:
        """The same blob in two repositories and two registries is one download."""
        digests = {
            storage.add_blob(repository, random_chunks("everywhere", 200_000))
            for storage in (lab.storage, lab.other_storage)
            for repository in ("one/app", "two/app")
        }
        (digest,) = digests
        names = (lab.noauth.name, lab.other.name)
        marks = [lab.noauth.log.mark(), lab.other.log.mark()]
        urls = [f"https://{name}{blob_path(digest, f'{n}/app')}" for name in names for n in ("one", "two")]
        bodies = {proxy.client().get(url).body for url in urls}
        assert [f"sha256:{hashlib.sha256(body).hexdigest()}" for body in bodies] == [digest]
        assert sum(mark.count(method="GET", path_contains=digest) for mark in marks) == 1

    @pytest.mark.parametrize("state", ["miss", "hit"])
    def test_clients_that_stop_reading_stop_nobody_else(self, proxy: Proxy, origin: Origin, state: str) -> None:
        """With a dozen clients that take no more bytes, another gets its blob whole."""
        body, digest = make_blob(12_000_000)
        url = f"https://{ORIGIN}{blob_path(digest)}"
        origin.serve(blob_path(digest), Reply(body))
        if state == "hit":
            proxy.client().get(url)
            wait_until(lambda: is_stored(proxy, digest), "the blob is stored")
        with contextlib.ExitStack() as stalled:
            for _ in range(12):
                stalled.enter_context(proxy.client().stream("GET", url)).read(1)
            assert proxy.client().get(url).body == body
        assert origin.log.count() == 1

    def test_a_client_that_takes_nothing_is_cut_after_the_send_timeout(
        self, start_proxy: StartProxy, origin: Origin
    ) -> None:
        """SEND_TIMEOUT ends a transfer that does not move, and the log says so."""
        body, digest = make_blob(30_000_000)
        origin.serve(blob_path(digest), Reply(body))
        proxy = start_proxy({"SEND_TIMEOUT": "1s"})
        with proxy.client().stream("GET", f"https://{ORIGIN}{blob_path(digest)}") as response:
            response.read(1)
            wait_until(lambda: "took no byte for 1 s" in proxy.log, "the client is cut off")
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()


PLAIN = "plain.lab.test:5000"
type Ask = Callable[[str, dict[str, str]], Response]


SIZE_BYTES = 100_000
WHOLE = (200, 0, SIZE_BYTES)
RANGES = (
    pytest.param({}, WHOLE, id="whole"),
    pytest.param({"Range": "bytes=10-19"}, (206, 10, 20), id="closed"),
    pytest.param({"Range": "bytes=0-0"}, (206, 0, 1), id="first byte"),
    pytest.param({"Range": "bytes=99999-"}, (206, 99_999, SIZE_BYTES), id="open"),
    pytest.param({"Range": "bytes=-100"}, (206, 99_900, SIZE_BYTES), id="suffix"),
    pytest.param({"Range": "bytes=-200000"}, (206, 0, SIZE_BYTES), id="long suffix"),
    pytest.param({"Range": "bytes=50000-200000"}, (206, 50_000, SIZE_BYTES), id="clipped"),
    pytest.param({"Range": "bytes=0-1,5-6"}, WHOLE, id="several"),
    pytest.param({"Range": "lines=0-1"}, WHOLE, id="other unit"),
    pytest.param({"Range": "bytes=10-19", "If-Range": "<etag>"}, (206, 10, 20), id="if-range matches"),
    pytest.param({"Range": "bytes=10-19", "If-Range": '"x"'}, WHOLE, id="if-range differs"),
)
"""Fields of a request; status, first byte and end of the answer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A blob that the proxy has (`hit`) or does not have (`miss`)."""

    body: bytes
    digest: str
    state: str

    @property
    def path(self) -> str:
        """Where the registry has it."""
        return blob_path(self.digest)


@pytest.fixture(scope="module")
def shared_proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for these tests: each has a blob of its own."""
    settings = lab.proxy_settings
    mapping = f"plain.lab.test={lab.noauth.address.host}:{BACKEND_PORT}"
    changed = {
        "REGISTRIES": f"{settings['REGISTRIES']} http://{PLAIN}",
        "UPSTREAM_MAPPINGS": f"{settings['UPSTREAM_MAPPINGS']} {mapping}",
    }
    with lab.proxy(tmp_path_factory.mktemp("proxy"), changed) as running:
        yield running


class TestParts:
    """HEAD and ranges, for a blob that is there and one that is not, through both doors."""

    @pytest.fixture(params=["tls", "http"])
    def ask(self, request: pytest.FixtureRequest, lab: Lab, shared_proxy: Proxy) -> Ask:
        """Return what sends `METHOD path` with fields through one of the doors."""

        def ask(request_line: str, fields: dict[str, str]) -> Response:
            method, path = request_line.split(" ")
            if request.param == "tls":
                return shared_proxy.client().request(method, f"https://{lab.noauth.name}{path}", fields)
            return shared_proxy.request(method, f"http://{PLAIN}{path}", fields)

        return ask

    @pytest.fixture(params=["miss", "hit"])
    def sample(self, request: pytest.FixtureRequest, lab: Lab, shared_proxy: Proxy, ask: Ask) -> Sample:
        """Put a blob of this test's own in the registry, and for a hit in the cache."""
        body, digest = make_blob(SIZE_BYTES)
        assert lab.storage.add_blob("app", [body]) == digest
        if request.param == "hit":
            ask(f"GET {blob_path(digest)}", {})
            wait_until(lambda: is_stored(shared_proxy, digest), "the blob is stored")
        return Sample(body, digest, request.param)

    @pytest.mark.parametrize(("fields", "expected"), RANGES)
    def test_the_part_that_is_asked_for_is_sent(
        self, ask: Ask, sample: Sample, fields: dict[str, str], expected: tuple[int, int, int]
    ) -> None:
        """Status, bytes and fields are those of RFC 9110, whether the blob is in the cache or on its way."""
        status, start, stop = expected
        etag = f'"{sample.digest}"'
        answer = ask(f"GET {sample.path}", {name: text.replace("<etag>", etag) for name, text in fields.items()})
        assert (answer.status, answer.body == sample.body[start:stop]) == (status, True)
        assert answer.header("Content-Length") == str(stop - start)
        assert answer.header("Docker-Content-Digest") == sample.digest
        assert answer.header("ETag") == etag
        assert answer.header("Accept-Ranges") == "bytes"
        content_range = f"bytes {start}-{stop - 1}/{SIZE_BYTES}" if status == 206 else None
        assert answer.headers["Content-Range"] == content_range
        assert answer.header("X-Docker-Registry-Proxy-Cache-Upstream-Status") == sample.state.upper()

    @pytest.mark.parametrize("text", ["bytes=100000-", "bytes=200000-300000", "bytes=20-10", "bytes=-0"])
    def test_a_part_that_is_not_there_is_416(self, ask: Ask, sample: Sample, text: str) -> None:
        """An unsatisfiable range is told the size, and sends nothing."""
        answer = ask(f"GET {sample.path}", {"Range": text})
        assert (answer.status, answer.body, answer.header("Content-Length")) == (416, b"", "0")
        assert answer.header("Content-Range") == f"bytes */{SIZE_BYTES}"

    def test_head_describes_the_blob_and_sends_nothing(self, ask: Ask, sample: Sample) -> None:
        """HEAD has the length, digest and quoted entity tag of the GET, and does not download the blob."""
        answer = ask(f"HEAD {sample.path}", {})
        assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", str(SIZE_BYTES))
        assert answer.header("Docker-Content-Digest") == sample.digest
        assert answer.header("ETag") == f'"{sample.digest}"'
        assert answer.header("X-Docker-Registry-Proxy-Cache-Upstream-Status") == sample.state.upper()

    def test_a_range_of_a_cold_blob_stores_the_whole(self, lab: Lab, shared_proxy: Proxy, ask: Ask) -> None:
        """After a part of it was asked for, the whole blob is a hit."""
        body, digest = make_blob(SIZE_BYTES)
        assert lab.storage.add_blob("app", [body]) == digest
        ask(f"GET {blob_path(digest)}", {"Range": "bytes=1-2"})
        wait_until(lambda: is_stored(shared_proxy, digest), "the blob is stored")
        answer = ask(f"GET {blob_path(digest)}", {})
        assert answer.body == body
        assert answer.header("X-Docker-Registry-Proxy-Cache-Upstream-Status") == "HIT"


class TestConnections:
    def test_a_connection_serves_many_requests_after_a_body(self, proxy: Proxy, origin: Origin) -> None:
        """On one kept connection: miss, hit, part, HEAD, 416, error, and a body again, each with the right bytes."""
        body, digest = make_blob()
        origin.serve(blob_path(digest), Reply(body))
        url = urlsplit(f"https://{ORIGIN}{blob_path(digest)}")
        connection = ProxyRoute(proxy.address, proxy.ca_file).connect(url)
        steps: list[tuple[str, str, dict[str, str], int, bytes | None]] = [
            ("GET", url.path, {}, 200, body),
            ("GET", url.path, {}, 200, body),
            ("GET", url.path, {"Range": "bytes=5-9"}, 206, body[5:10]),
            ("HEAD", url.path, {}, 200, b""),
            ("GET", url.path, {"Range": "bytes=9999999-"}, 416, b""),
            ("GET", "/v2/app/blobs/sha256:x", {}, 400, None),
            ("GET", url.path, {}, 200, body),
        ]
        with contextlib.closing(connection):
            connection.connect()
            socket = connection.sock
            for method, path, fields, status, expected in steps:
                connection.request(method, path, headers=fields)
                with connection.getresponse() as response:
                    got = response.read()
                assert response.status == status
                assert expected is None or got == expected
                assert connection.sock is socket
        assert origin.log.count() == 1

    @pytest.mark.parametrize("state", ["miss", "hit"])
    def test_pipelined_requests_are_answered_in_order(self, proxy: Proxy, origin: Origin, state: str) -> None:
        """Requests that are sent before the first answer's body has been read are all answered, in their order."""
        bodies = [make_blob(300_000 + number) for number in range(4)]
        for body, digest in bodies:
            origin.serve(blob_path(digest), Reply(body))
            if state == "hit":
                proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}")
        requests = [f"GET {blob_path(digest)} HTTP/1.1\r\nHost: {ORIGIN}\r\n\r\n" for _, digest in bodies]
        with tunnelled(proxy.address, f"{ORIGIN}:443", proxy.ca_file) as connection:
            connection.sendall("".join(requests).encode())
            for body, _ in bodies:
                head = read_head(connection)
                assert head.startswith(b"HTTP/1.1 200 ")
                got = bytearray()
                while len(got) < len(body):
                    got += connection.recv(len(body) - len(got))
                assert got == body

    def test_a_connection_with_close_ends_after_its_body(self, proxy: Proxy, origin: Origin) -> None:
        """`Connection: close` is honoured after a body from a file."""
        body, digest = make_blob()
        origin.serve(blob_path(digest), Reply(body))
        head = f"GET {blob_path(digest)} HTTP/1.1\r\nHost: {ORIGIN}\r\nConnection: close\r\n\r\n".encode()
        for _ in range(2):
            with tunnelled(proxy.address, f"{ORIGIN}:443", proxy.ca_file) as connection:
                connection.sendall(head)
                received = bytearray()
                while piece := connection.recv(100_000):
                    received += piece
            assert received.partition(b"\r\n\r\n")[2] == body


def redirect(origin: Origin, digest: str, location: str, status: int = 307) -> None:
    """Let a scripted registry send a blob's clients elsewhere."""
    origin.serve(blob_path(digest), Reply(status=status, headers={"Location": location}))


class TestRedirects:
    def test_the_cdn_sees_no_authorization(self, lab: Lab, proxy: Proxy, start_origin: StartOrigin) -> None:
        """A client's own credentials reach the registry, and never the host that it redirects to."""
        origin, edge = start_origin(ORIGIN), start_origin(EDGE)
        body, digest = make_blob()
        redirect(origin, digest, f"https://{EDGE}/b?signature=1")
        edge.serve("/b", Reply(body))
        fields = {"Authorization": "Bearer secret-token", "Cookie": "a=b", "X-Other": "1"}
        assert proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}", fields).body == body
        assert origin.log.requests()[0].authorization == "Bearer"
        assert [request.authorization for request in edge.log.requests()] == [""]
        digest = lab.storage.add_blob("app", random_chunks("strict", 100_000))
        mark = lab.cdn.log.mark()
        answer = proxy.client().get(f"https://{lab.redirect.name}{blob_path(digest)}", fields)
        assert (answer.status, mark.count(), mark.requests()[0].authorization) == (200, 1, "")

    def test_a_resumption_asks_for_a_new_signature(self, proxy: Proxy, start_origin: StartOrigin) -> None:
        """After a cut, and when the signature has run out, the registry is asked for another URL."""
        origin, edge = start_origin(ORIGIN), start_origin(EDGE)
        body, digest = make_blob()
        origin.serve(
            blob_path(digest),
            *(Reply(status=307, headers={"Location": f"https://{EDGE}/b?signature={n}"}) for n in range(3)),
        )
        cut = Reply(body, cut_after_bytes=400_000, rate_bytes_per_s=4_000_000)
        edge.serve("/b", cut, Reply(b"expired", 403), Reply(body))
        assert proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}").body == body
        assert [(request.target, request.range) for request in edge.log.requests()] == [
            ("/b?signature=0", ""),
            ("/b?signature=1", "bytes=400000-999999"),
            ("/b?signature=2", "bytes=400000-999999"),
        ]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_every_kind_of_redirect_is_followed(self, proxy: Proxy, start_origin: StartOrigin, status: int) -> None:
        """All five statuses lead to the blob."""
        origin, edge = start_origin(ORIGIN), start_origin(EDGE)
        body, digest = make_blob(5000)
        redirect(origin, digest, f"https://{EDGE}/b", status)
        edge.serve("/b", Reply(body))
        assert proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}").body == body

    def test_three_hops_and_relative_ones_are_followed(self, proxy: Proxy, start_origin: StartOrigin) -> None:
        """A relative Location is of the host that sent it; the last host gets the client's Range and no more."""
        origin, edge, last = (start_origin(name) for name in (ORIGIN, EDGE, "edge2.lab.test"))
        body, digest = make_blob()
        redirect(origin, digest, "/storage?a=1")
        origin.serve("/storage", Reply(status=302, headers={"Location": f"//{EDGE}/x/y"}))
        edge.serve("/x/y", Reply(status=308, headers={"Location": "../z"}))
        edge.serve("/z", Reply(status=307, headers={"Location": "https://edge2.lab.test/end"}))
        last.serve("/end", Reply(body))
        answer = proxy.client().get(f"https://{ORIGIN}{blob_path(digest)}", {"Authorization": "Basic eDp5"})
        assert answer.body == body
        assert [request.authorization for request in origin.log.requests()] == ["Basic", "Basic"]
        assert [request.authorization for request in (*edge.log.requests(), *last.log.requests())] == ["", "", ""]

    def test_a_trusted_address_may_be_redirected_to(
        self, lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin
    ) -> None:
        """A loopback address in TRUSTED_HOSTS is followed, by the same rule that refuses it otherwise."""
        origin, edge = start_origin(ORIGIN), start_origin(EDGE)
        body, digest = make_blob(5000)
        redirect(origin, digest, f"https://{edge.address}/b")
        edge.serve("/b", Reply(body))
        url = f"https://{ORIGIN}{blob_path(digest)}"
        assert start_proxy().client().get(url).status == 502
        trusted = f"{lab.proxy_settings['TRUSTED_HOSTS']} {edge.address.host}"
        assert start_proxy({"TRUSTED_HOSTS": trusted}).client().get(url).body == body
