"""Pushes through the proxy: refused by default without reading them, streamed and never cached when allowed."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from ssl import create_default_context
from urllib.parse import urlencode

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.image import MANIFEST, random_chunks
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.skopeo import hash_files
from lab.workers import settled_rss_bytes

pytestmark = pytest.mark.e2e

WRITES = ["POST", "PUT", "PATCH", "DELETE"]
ALLOWED = {"ALLOW_PUSH": "true", "ENABLE_MANIFEST_CACHE": "true"}
"""The tag latest is fresh for an hour, so a pull of it says nothing to the registry."""

BODY_BYTES = 96 * 1024 * 1024
MEMORY_LIMIT_BYTES = 24 * 1024 * 1024
_PIECE_BYTES = 1 << 20


def connect(proxy: Proxy, host: str) -> HTTPConnection:
    """Return a connection to a registry through the proxy, on which a test sends its request step by step."""
    connection = HTTPSConnection(*proxy.address, timeout=30, context=create_default_context(cafile=str(proxy.ca_file)))
    connection.set_tunnel(host, 443)
    return connection


def send_head(connection: HTTPConnection, method: str, target: str, body_bytes: int) -> None:
    connection.putrequest(method, target)
    connection.putheader("Content-Length", str(body_bytes))
    connection.endheaders()


class TestAllowed:
    def test_a_pushed_image_is_what_a_pull_of_its_tag_gives(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The tag was cached and fresh; after a push through the proxy with a real client it is the new image."""
        old, new = build_image("old"), build_image("new", architectures=("amd64", "arm64"))
        lab.push(old, "push/image")
        proxy = start_proxy(ALLOWED)
        reference = f"{lab.noauth.name}/push/image:latest"
        for turn in ("old", "fresh"):
            proxy.skopeo("pull").pull(reference, tmp_path / turn)
        log = lab.noauth.log.mark()
        assert proxy.skopeo("push").push(new, reference) == new.digest
        assert log.count(method="PUT", path_contains="/manifests/", status=201) == len(new.manifests)
        proxy.skopeo("pull").pull(reference, tmp_path / "new", all_platforms=True)
        pulled = set(hash_files(tmp_path / "new").values())
        assert {digest.removeprefix("sha256:") for digest in (*new.manifests, *new.blobs)} <= pulled
        assert hash_files(tmp_path / "fresh") == hash_files(tmp_path / "old")

    def test_a_push_with_credentials_reaches_a_registry_that_wants_them(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The client's own login is used for the writes and for the tokens they need."""
        # the token server is intercepted, for the client trusts the proxy's CA only
        proxy = start_proxy({**ALLOWED, "REGISTRIES": f"{lab.proxy_settings['REGISTRIES']} auth.lab.test"})
        for registry in (lab.basic, lab.token):
            image = build_image(registry.name)
            reference = f"{registry.name}/private/pushed-{registry.name}:latest"
            proxy.skopeo("alice").push(image, reference, credentials="alice:secret")
            proxy.skopeo("alice").pull(reference, tmp_path / registry.name, credentials="alice:secret")
            assert image.digest.removeprefix("sha256:") in hash_files(tmp_path / registry.name).values()

    def test_a_pushed_or_deleted_tag_leaves_the_cache_for_every_client(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """PUT and DELETE of a tag forget it for all Accept fields, a refused one forgets nothing."""
        old, new = build_image("old"), build_image("new")
        lab.push(new, "push/forgotten")
        lab.push(old, "push/forgotten")
        client = start_proxy(ALLOWED).client()
        url = f"https://{lab.noauth.name}/v2/push/forgotten/manifests/latest"
        accepts = [MANIFEST, f"{MANIFEST}, application/json"]
        for accept in accepts:
            assert client.get(url, {"Accept": accept}).body == old.read(old.digest)
        refused = client.request("PUT", url, {"Content-Type": MANIFEST}, b"no manifest")
        assert refused.status == 400
        mark = lab.noauth.log.mark()
        assert client.get(url, {"Accept": MANIFEST}).body == old.read(old.digest)
        assert mark.count() == 0
        assert client.request("PUT", url, {"Content-Type": MANIFEST}, new.read(new.digest)).status == 201
        assert [client.get(url, {"Accept": accept}).body for accept in accepts] == [new.read(new.digest)] * 2

    def test_a_deleted_tag_is_not_served(self, start_proxy: StartProxy, origin: Origin) -> None:
        """After a DELETE that the registry took, its 404 is what the next client gets."""
        path = "/v2/some/image/manifests/latest"
        url, client = f"https://{origin.name}{path}", start_proxy(ALLOWED).client()
        origin.serve(path, Reply(b"{}", headers={"Content-Type": MANIFEST}), Reply(status=202), Reply(status=404))
        assert client.get(url, {"Accept": MANIFEST}).status == 200
        assert client.request("DELETE", url).status == 202
        assert client.get(url, {"Accept": MANIFEST}).status == 404

    def test_the_head_of_a_blob_is_asked_of_the_registry(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """A blob that only the cache has is not there for a push, which would otherwise skip its upload."""
        image = build_image()
        lab.push(image, "push/live")
        client = start_proxy(ALLOWED).client()
        url = f"https://{lab.noauth.name}/v2/push/live/blobs/{image.layers[0]}"
        client.get(url)
        mark = lab.noauth.log.mark()
        present = client.head(url)
        assert (present.status, present.header("Content-Length")) == (200, str(len(image.read(image.layers[0]))))
        with lab.storage.missing(image.layers[0]):
            assert client.head(url).status == 404
            assert client.get(url).body == image.read(image.layers[0])
        assert [request.method for request in mark.requests(path_contains="/blobs/")] == ["HEAD", "HEAD"]

    def test_an_upload_streams_through(self, start_proxy: StartProxy, origin: Origin) -> None:
        """A large upload arrives whole, its Location comes back as it was sent, and no body is kept in memory."""
        proxy = start_proxy(ALLOWED)
        target = "/v2/push/large/blobs/uploads/1?state=a%2Fb"
        location = "/v2/push/large/blobs/uploads/1?state=c%2Fd"
        origin.serve("/v2/push/large/blobs/uploads/1", Reply(status=202, headers={"Location": location}))
        proxy.client().get(f"https://{origin.name}/v2/")
        before_bytes = peak_bytes = settled_rss_bytes(proxy)
        connection = connect(proxy, origin.name)
        try:
            send_head(connection, "PATCH", target, BODY_BYTES)
            for number, piece in enumerate(random_chunks("push", BODY_BYTES)):
                connection.send(piece)
                peak_bytes = max(peak_bytes, proxy.rss_bytes()) if number % 8 == 0 else peak_bytes
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        assert (response.status, response.headers["Location"]) == (202, location)
        assert origin.log.requests(method="PATCH")[0].target == target
        assert peak_bytes - before_bytes < MEMORY_LIMIT_BYTES


@pytest.fixture(scope="module")
def refusing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield one proxy with the default settings for all refused writes."""
    with lab.proxy(tmp_path_factory.mktemp("refusing")) as running:
        yield running


class TestRefused:
    @pytest.mark.parametrize("method", WRITES)
    def test_a_write_is_405_and_reaches_nobody(self, refusing: Proxy, origin: Origin, method: str) -> None:
        """By default every writing method is refused in the predecessor's words, for any registry endpoint."""
        for path in ("/v2/some/image/blobs/uploads/", "/v2/some/image/manifests/latest", "/v2/"):
            answer = refusing.client().request(method, f"https://{origin.name}{path}", body=b"{}")
            assert (answer.status, answer.body) == (405, f"{method} method is not allowed".encode())
            assert answer.header("Content-Type").startswith("text/plain")
        assert origin.log.requests() == []

    def test_a_real_push_fails_and_changes_nothing(
        self, lab: Lab, refusing: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Skopeo is told that it may not push, and the tag stays what it was."""
        old, new = build_image("old"), build_image("new")
        lab.push(old, "push/refused")
        reference = f"{lab.noauth.name}/push/refused:latest"
        mark = lab.noauth.log.mark()
        failed = refusing.skopeo("push").run(["copy", new.source, f"docker://{reference}"], check=False)
        assert failed.returncode != 0
        assert "405" in failed.stderr
        assert {request.method for request in mark.requests()} <= {"GET", "HEAD"}
        refusing.skopeo("pull").pull(reference, tmp_path / "pulled")
        assert old.digest.removeprefix("sha256:") in hash_files(tmp_path / "pulled").values()

    @pytest.mark.parametrize("method", WRITES)
    def test_a_refused_body_of_many_megabytes_is_not_collected(
        self, refusing: Proxy, origin: Origin, method: str
    ) -> None:
        """The 405 is there before the body has been sent, and the proxy's memory has not grown by it."""
        refusing.client().get(f"https://{origin.name}/v2/")
        before_bytes = peak_bytes = settled_rss_bytes(refusing)
        connection = connect(refusing, origin.name)
        try:
            send_head(connection, method, "/v2/some/image/blobs/uploads/1", BODY_BYTES)
            piece = bytes(_PIECE_BYTES)
            sent_bytes = 0
            try:
                while sent_bytes < BODY_BYTES:
                    connection.send(piece)
                    sent_bytes += len(piece)
                    peak_bytes = max(peak_bytes, refusing.rss_bytes())
            except OSError:
                pass  # the proxy has closed: clients that notice read the answer now
            response = connection.getresponse()
            assert (response.status, response.read()) == (405, f"{method} method is not allowed".encode())
        finally:
            connection.close()
        assert peak_bytes - before_bytes < MEMORY_LIMIT_BYTES
        assert origin.log.count(path_contains="/uploads/") == 0

    def test_the_head_of_a_blob_is_answered_from_the_cache(
        self, lab: Lab, refusing: Proxy, build_image: MakeImage
    ) -> None:
        """Where nobody can push, a stored blob's HEAD costs the registry nothing."""
        image = build_image()
        lab.push(image, "push/cached")
        url = f"https://{lab.noauth.name}/v2/push/cached/blobs/{image.layers[0]}"
        refusing.client().get(url)
        mark = lab.noauth.log.mark()
        assert refusing.client().head(url).header("Content-Length") == str(len(image.read(image.layers[0])))
        assert mark.count() == 0

    def test_a_token_is_not_a_write(self, lab: Lab, refusing: Proxy) -> None:
        """POST to a token endpoint (OAuth2 form) is part of a pull: it passes, and its token is the client's own."""
        assert lab.hub.name == "registry-1.docker.io"
        form = {
            "grant_type": "password",
            "username": "alice",
            "password": "secret",
            "service": "registry.docker.io",
            "scope": "repository:private/image:pull",
            "client_id": "test",
        }
        mark = lab.auth.log.mark()
        answer = refusing.client().request(
            "POST",
            "https://auth.docker.io/token",
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
        assert answer.status == 200
        assert json.loads(answer.body)["access_token"]
        assert mark.count(method="POST", path_contains="/token", status=200) == 1
        assert "secret" not in refusing.log
