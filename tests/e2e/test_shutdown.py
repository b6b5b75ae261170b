"""TERM: the proxy ends at once, and what it had begun to download is continued by the next one."""

import hashlib
import http.client
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import create_default_context

import pytest

from lab.fixtures import StartProxy
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

BODY = b"".join(random_chunks("shutdown", 6_000_000))
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
PATH = f"/v2/some/image/blobs/{DIGEST}"
HELD_AT_BYTES = 4_000_000
SEEN_BYTES = 3_000_000
ETAG = '"one"'


def blob_url(origin: Origin) -> str:
    return f"https://{origin.name}{PATH}"


@contextmanager
def half_downloaded(proxy: Proxy, origin: Origin) -> Iterator[http.client.HTTPResponse]:
    """Yield the answer to a client that has SEEN_BYTES of the blob, whose rest the origin holds back."""
    with proxy.client().stream("GET", blob_url(origin)) as response:
        assert response.read(SEEN_BYTES) == BODY[:SEEN_BYTES]
        yield response


class TestInTheMiddle:
    @pytest.mark.parametrize("etag", [ETAG, None], ids=["with ETag", "without ETag"])
    def test_an_unfinished_download_is_resumed_after_the_restart(
        self, proxy: Proxy, origin: Origin, etag: str | None
    ) -> None:
        """TERM cuts the client and keeps what came; the next proxy asks for the rest only and the digest is right."""
        origin.serve(PATH, Reply(BODY, etag=etag, hold_after_bytes=HELD_AT_BYTES))
        with half_downloaded(proxy, origin) as response:
            exit_code = proxy.stop()
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
        assert exit_code == 0
        origin.serve(PATH, Reply(BODY, etag=etag))
        mark = origin.log.mark()
        proxy.start()
        answer = proxy.client().get(blob_url(origin))
        assert (answer.status, answer.body) == (200, BODY)
        first_bytes = [re.fullmatch(r"bytes=(\d+)-\d*", request.range) for request in mark.requests(path_contains=PATH)]
        assert all(match is not None and int(match[1]) >= SEEN_BYTES for match in first_bytes)
        assert sum(request.body_bytes for request in mark.requests(path_contains=PATH)) <= len(BODY) - SEEN_BYTES
        mark = origin.log.mark()
        assert proxy.client().get(blob_url(origin)).body == BODY
        assert mark.count() == 0

    def test_an_upstream_that_is_slow_is_not_waited_for(self, proxy: Proxy, origin: Origin) -> None:
        """A throttled download in full flow does not hold TERM up, and is resumed where it was."""
        origin.serve(PATH, Reply(BODY, etag=ETAG, rate_bytes_per_s=2_000_000))
        with proxy.client().stream("GET", blob_url(origin)) as response:
            response.read(500_000)
            proxy.stop()
        origin.serve(PATH, Reply(BODY, etag=ETAG))
        mark = origin.log.mark()
        assert proxy.start().client().get(blob_url(origin)).body == BODY
        assert all(request.range for request in mark.requests(path_contains=PATH))

    def test_content_that_changed_meanwhile_is_not_glued_together(self, proxy: Proxy, origin: Origin) -> None:
        """An origin whose file is another one answers the Range with the whole: it is taken from its start."""
        wrong = bytes(len(BODY))
        origin.serve(PATH, Reply(wrong, etag=ETAG, hold_after_bytes=HELD_AT_BYTES))
        with proxy.client().stream("GET", blob_url(origin)) as response:
            response.read(SEEN_BYTES)
            proxy.stop()
        origin.serve(PATH, Reply(BODY, etag='"two"'))
        client = proxy.start().client()
        try:
            first = client.get(blob_url(origin)).body
        except (http.client.IncompleteRead, OSError):
            first = BODY  # cut, because the beginning was of the other file: never wrong bytes that look complete
        assert first == BODY
        assert client.get(blob_url(origin)).body == BODY

    def test_a_client_that_reads_no_more_is_not_waited_for(self, lab: Lab, proxy: Proxy) -> None:
        """A stored blob on its way to a client that has stopped reading, and an idle tunnel, do not hold TERM up."""
        digest = lab.storage.add_blob("library/stuck", random_chunks("stuck", 64_000_000))
        url, client = f"https://{lab.noauth.name}/v2/library/stuck/blobs/{digest}", proxy.client()
        client.get(url)
        with client.stream("GET", url) as stuck, client.stream("GET", f"https://{lab.noauth.name}/v2/"):
            assert len(stuck.read(1)) == 1
            assert proxy.stop() == 0

    def test_an_upload_in_progress_is_not_waited_for(self, start_proxy: StartProxy, origin: Origin) -> None:
        """A pushing client in the middle of its body does not hold TERM up."""
        proxy = start_proxy({"ALLOW_PUSH": "true"})
        context = create_default_context(cafile=str(proxy.ca_file))
        connection = http.client.HTTPSConnection(*proxy.address, timeout=30, context=context)
        connection.set_tunnel(origin.name, 443)
        try:
            connection.putrequest("PUT", "/v2/some/image/blobs/uploads/1")
            connection.putheader("Content-Length", str(len(BODY)))
            connection.endheaders()
            connection.send(BODY[:SEEN_BYTES])
            assert proxy.stop() == 0
        finally:
            connection.close()


def test_a_proxy_that_is_starting_can_be_stopped(lab: Lab, tmp_path: Path) -> None:
    """TERM before it is ready ends it as well, and the next start finds nothing in its way."""
    proxy = lab.proxy(tmp_path)
    proxy._program.start()
    proxy.stop()
    with proxy:
        assert proxy.readiness() == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_an_idle_proxy_ends_with_code_0_and_no_complaint(lab: Lab, tmp_path: Path, number: signal.Signals) -> None:
    """A stop is no error: nothing but the start is told, no traceback, no warning."""
    with lab.proxy(tmp_path) as proxy:
        pid = proxy.pids()[0]
        os.kill(pid, number)
        assert proxy._program.stop() == 0
    assert len(proxy.log.splitlines()) == 1
