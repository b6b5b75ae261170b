"""The lab keeps its promises, so that a failing test on real parts is the proxy's failure and not the lab's."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.fixtures import MakeImage
from lab.http_client import Client, ProxyRoute
from lab.image import INDEX, MANIFEST, Image, random_chunks
from lab.lab import CDN, HUB, HUB_CDN, Lab
from lab.origin import Gate, Origin, Reply
from lab.programs import LabError, find_program
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME, Registry
from lab.skopeo import Skopeo, hash_files
from lab.tunnel import BlindProxy

pytestmark = pytest.mark.e2e

ALICE = {"Authorization": "Basic " + base64.b64encode(b"alice:secret").decode()}


def bearer(lab: Lab, scope: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Return the Authorization field that the token server gives for a scope."""
    answer = lab.client.get(f"https://auth.lab.test/token?service=token.lab.test&scope={scope}", headers)
    return {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}


class TestRegistries:
    def test_a_pushed_image_is_pulled_by_name_with_identical_bytes(
        self, lab: Lab, plain_skopeo: Skopeo, blind_proxy: BlindProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Skopeo resolves no name itself: it sends CONNECT with the name and gets each byte that was pushed."""
        image = build_image(architectures=("amd64", "arm64"))
        assert lab.push(image, "library/multi") == image.digest
        plain_skopeo.pull("noauth.lab.test/library/multi:latest", tmp_path / "pulled", all_platforms=True)
        pulled = set(hash_files(tmp_path / "pulled").values())
        assert {digest.removeprefix("sha256:") for digest in (*image.manifests, *image.blobs)} <= pulled
        assert set(blind_proxy.connects) == {"noauth.lab.test:443"}

    def test_an_image_can_be_pushed_with_docker_media_types(self, lab: Lab, build_image: MakeImage) -> None:
        """`manifest_format="v2s2"` converts on push, so the tag's manifest is Docker's."""
        digest = lab.push(build_image(), "library/docker", manifest_format="v2s2")
        manifest = lab.client.get(
            "https://noauth.lab.test/v2/library/docker/manifests/latest",
            {"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        assert manifest.header("Content-Type") == "application/vnd.docker.distribution.manifest.v2+json"
        assert manifest.header("Docker-Content-Digest") == digest

    @pytest.mark.parametrize(
        ("name", "challenge"),
        [
            pytest.param("basic", 'Basic realm="lab"', id="basic"),
            pytest.param("token", 'Bearer realm="https://auth.lab.test/token"', id="token"),
            pytest.param("hub", 'Bearer realm="https://auth.docker.io/token"', id="hub"),
        ],
    )
    def test_a_stranger_gets_401_with_the_challenge(self, lab: Lab, name: str, challenge: str) -> None:
        """A registry that wants credentials says which."""
        registry: Registry = getattr(lab, name)
        answer = lab.client.get(f"https://{registry.name}/v2/")
        assert answer.status == 401
        assert answer.header("WWW-Authenticate").startswith(challenge)

    def test_alice_may_read_the_basic_registry(self, lab: Lab) -> None:
        """The password of the constant hash is the one of the documentation."""
        assert lab.basic.name == "basic.lab.test"
        assert lab.client.get("https://basic.lab.test/v2/", ALICE).status == 200

    def test_registries_share_a_storage_except_other(self, lab: Lab, build_image: MakeImage) -> None:
        """The same name and tag is another image in other.lab.test and the same one everywhere else."""
        ours, theirs = build_image("ours"), build_image("theirs")
        lab.push(ours, "library/same")
        lab.push(theirs, "library/same", to=lab.other)
        lab.redirect.start()
        accept = {"Accept": MANIFEST}
        digests = {
            name: lab.client.head(f"https://{name}/v2/library/same/manifests/latest", accept).header(
                "Docker-Content-Digest"
            )
            for name in ("noauth.lab.test", "redirect.lab.test", "other.lab.test")
        }
        assert digests == {
            "noauth.lab.test": ours.digest,
            "redirect.lab.test": ours.digest,
            "other.lab.test": theirs.digest,
        }

    def test_a_stopped_registry_refuses_and_comes_back_at_the_same_address(self, lab: Lab) -> None:
        """Stop and start again is an outage, not another registry."""
        url = f"https://{lab.other.name}/v2/"
        mark = lab.other.log.mark()
        assert lab.client.get(url).status == 200
        with lab.other.stopped():
            with pytest.raises(ConnectionRefusedError):
                lab.client.get(url)
            assert mark.count(path_contains="/v2/") == 1
        assert lab.client.get(url).status == 200
        assert mark.count(path_contains="/v2/", status=200) == 2

    def test_a_registry_without_its_backend_answers_502(self, lab: Lab) -> None:
        """A front whose registry died is a server error, not a refused connection."""
        lab.other.stop_backend()
        try:
            assert lab.client.get("https://other.lab.test/v2/").status == 502
        finally:
            lab.other.start()

    def test_a_registry_stopped_in_a_body_cuts_it_and_serves_the_rest_when_it_is_back(self, lab: Lab) -> None:
        """A client in the middle of a throttled blob sees its end missing and asks for it after the restart."""
        size_bytes = 8_000_000
        digest = lab.other_storage.add_blob("library/cut", random_chunks("cut", size_bytes))
        url = f"https://other.lab.test/v2/library/cut/blobs/{digest}"
        mark = lab.other.log.mark()
        with lab.other.throttled(1_000_000), lab.client.stream("GET", url) as response:
            assert len(response.read(1000)) == 1000
            with lab.other.stopped(), pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
        rest = lab.client.get(url, {"Range": "bytes=1000-"})
        assert (rest.status, len(rest.body)) == (206, size_bytes - 1000)
        assert [request.range for request in mark.requests(path_contains=digest)] == ["bytes=1000-"]


class TestAccessLog:
    def test_counts_every_request_without_waiting(self, lab: Lab, build_image: MakeImage) -> None:
        """Each answered request is in the log at once, also when many come together."""
        image = build_image()
        lab.push(image, "library/counted")
        mark = lab.noauth.log.mark()
        urls = [f"https://noauth.lab.test/v2/library/counted/blobs/{image.layers[0]}"] * 40
        with ThreadPoolExecutor(8) as pool:
            bodies = {answer.body for answer in pool.map(lab.client.get, urls)}
        assert mark.count(method="GET", path_contains="/blobs/", status=200) == 40
        assert bodies == {image.read(image.layers[0])}

    def test_records_what_was_sent_but_no_secret(self, lab: Lab, build_image: MakeImage) -> None:
        """Range, host, client and authorization scheme are recorded, the credential is not."""
        image = build_image()
        lab.push(image, "library/recorded")
        assert lab.basic.name == "basic.lab.test"
        mark = lab.basic.log.mark()
        url = f"https://basic.lab.test/v2/library/recorded/blobs/{image.layers[0]}?x=1"
        lab.client.get(url, {**ALICE, "Range": "bytes=10-19", "User-Agent": 'a "client"'})
        (request,) = mark.requests()
        assert (request.method, request.target) == ("GET", url.removeprefix("https://basic.lab.test"))
        assert (request.status, request.body_bytes, request.range) == (206, 10, "bytes=10-19")
        assert (request.host, request.authorization) == ("basic.lab.test", "Basic")
        assert request.user_agent == 'a "client"'
        assert ALICE["Authorization"].split()[1] not in request.to_json()


class TestTokens:
    def test_a_token_of_the_realm_opens_the_registry(self, lab: Lab, build_image: MakeImage) -> None:
        """The realm of the challenge gives an anonymous client a token to pull, and its request is logged."""
        lab.push(build_image(), "library/open")
        url = f"https://{lab.token.name}/v2/library/open/manifests/latest"
        mark = lab.auth.log.mark()
        assert lab.client.get(url, {"Accept": MANIFEST}).status == 401
        token = bearer(lab, "repository:library/open:pull")
        assert lab.client.get(url, {"Accept": MANIFEST, **token}).status == 200
        assert mark.count(method="GET", path_contains="/token", status=200) == 1

    def test_private_repositories_are_for_alice_only(self, lab: Lab, build_image: MakeImage) -> None:
        """An anonymous token does not open private/*, one for alice does."""
        lab.push(build_image(), "private/closed")
        url = f"https://{lab.token.name}/v2/private/closed/manifests/latest"
        scope = "repository:private/closed:pull"
        assert lab.client.get(url, {"Accept": MANIFEST, **bearer(lab, scope)}).status == 401
        assert lab.client.get(url, {"Accept": MANIFEST, **bearer(lab, scope, ALICE)}).status == 200

    @pytest.mark.parametrize("name", ["basic", "token", "hub"])
    def test_skopeo_pulls_with_the_password_and_not_without(
        self, lab: Lab, plain_skopeo: Skopeo, build_image: MakeImage, tmp_path: Path, name: str
    ) -> None:
        """A real client answers each kind of challenge, and its failure is a result when it is not checked."""
        registry: Registry = getattr(lab, name)
        lab.push(build_image(), "private/login")
        reference = f"{registry.name}/private/login:latest"
        stranger = plain_skopeo.pull(reference, tmp_path / "refused", check=False)
        assert (stranger.returncode, "unauthorized" in stranger.stderr) == (1, True)
        plain_skopeo.pull(reference, tmp_path / "pulled", credentials=f"{USERNAME}:{PASSWORD}")
        assert "manifest.json" in hash_files(tmp_path / "pulled")

    def test_the_post_form_takes_a_password_and_a_refresh_token(self, lab: Lab) -> None:
        """Clients with an identity token POST; a wrong password is refused there too."""
        lab.auth.start()
        url = "https://auth.lab.test/token"
        form = b"grant_type=password&username=alice&password=%s&access_type=offline&scope=repository:private/a:pull"
        granted = lab.client.request("POST", url, body=form % b"secret")
        refresh_token = json.loads(granted.body)["refresh_token"]
        refreshed = lab.client.request(
            "POST", url, body=b"grant_type=refresh_token&refresh_token=" + refresh_token.encode()
        )
        refused = lab.client.request("POST", url, body=form % b"wrong")
        assert [granted.status, refreshed.status, refused.status] == [200, 200, 401]

    def test_the_lifetime_of_tokens_can_be_changed(self, lab: Lab) -> None:
        """A short-lived token says so."""
        lab.auth.set_lifetime(7)
        try:
            answer = lab.client.get("https://auth.lab.test/token?service=token.lab.test")
        finally:
            lab.auth.set_lifetime()
        assert json.loads(answer.body)["expires_in"] == 7


class TestCdn:
    @pytest.fixture
    def image(self, lab: Lab, build_image: MakeImage) -> Image:
        """Push an image of the test to the shared storage."""
        image = build_image()
        lab.push(image, "library/redirected")
        return image

    def location(self, lab: Lab, digest: str, method: str = "GET") -> str:
        """Return where the redirecting registry sends a client."""
        url = f"https://{lab.redirect.name}/v2/library/redirected/blobs/{digest}"
        answer = lab.client.request(method, url)
        assert answer.status == 307
        return answer.header("Location")

    def test_a_blob_is_redirected_with_a_signature_that_changes(self, lab: Lab, image: Image) -> None:
        """Two answers name the same file with two signatures, and each signature gives the blob."""
        first, second = (urlsplit(self.location(lab, image.layers[0])) for _ in range(2))
        assert (first.hostname, first.path) == (CDN, second.path)
        assert parse_qs(first.query)["verify"] != parse_qs(second.query)["verify"]
        blobs = {lab.client.get(url.geturl()).body for url in (first, second)}
        assert blobs == {image.read(image.layers[0])}

    @pytest.mark.parametrize(
        ("changed", "headers", "status"),
        [
            pytest.param(lambda url: url.partition("?")[0], {}, 403, id="no signature"),
            pytest.param(lambda url: url, ALICE, 400, id="authorization"),
            pytest.param(lambda url: url, {"Range": "bytes=5-9"}, 206, id="range"),
        ],
    )
    def test_the_cdn_is_as_strict_as_s3(
        self, lab: Lab, image: Image, changed: Callable[[str], str], headers: dict[str, str], status: int
    ) -> None:
        """No signature is 403, any Authorization is 400, ranges are honoured."""
        answer = lab.client.get(changed(self.location(lab, image.layers[0])), headers)
        assert answer.status == status
        assert status != 206 or answer.body == image.read(image.layers[0])[5:10]

    def test_a_signature_is_for_one_method(self, lab: Lab, image: Image) -> None:
        """The location of a HEAD does not open a GET, as with S3."""
        location = self.location(lab, image.layers[0], "HEAD")
        assert lab.client.head(location).status == 200
        assert lab.client.get(location).status == 403

    def test_the_hub_look_alike_redirects_to_its_own_cdn(self, lab: Lab, image: Image) -> None:
        """registry-1.docker.io wants a token, counts manifests and sends blobs to its CDN's name."""
        lab.hub.start()
        scope = "service=registry.docker.io&scope=repository:library/redirected:pull"
        token = json.loads(lab.client.get(f"https://auth.docker.io/token?{scope}").body)["token"]
        fields = {"Authorization": f"Bearer {token}", "Accept": MANIFEST}
        manifest = lab.client.get(f"https://{HUB}/v2/library/redirected/manifests/latest", fields)
        blob = lab.client.get(f"https://{HUB}/v2/library/redirected/blobs/{image.layers[0]}", fields)
        assert (manifest.status, manifest.header("ratelimit-limit")) == (200, "100;w=21600")
        assert urlsplit(blob.header("Location")).hostname == HUB_CDN
        assert lab.client.get(blob.header("Location")).body == image.read(image.layers[0])

    def test_skopeo_follows_the_redirect(
        self, lab: Lab, image: Image, plain_skopeo: Skopeo, blind_proxy: BlindProxy, tmp_path: Path
    ) -> None:
        """A real client pulls from registry and CDN, and the CDN's log counts it."""
        mark = lab.cdn.log.mark()
        assert lab.redirect.name == "redirect.lab.test"
        plain_skopeo.pull("redirect.lab.test/library/redirected:latest", tmp_path / "pulled", transport="oci")
        assert set(blind_proxy.connects) == {"redirect.lab.test:443", f"{CDN}:443"}
        assert mark.count(method="GET", status=200) == len(image.blobs)
        pulled = hash_files(tmp_path / "pulled")
        assert {digest.removeprefix("sha256:") for digest in image.blobs} <= set(pulled.values())

    def test_a_blob_can_be_served_wrong_or_missing_for_a_while(self, lab: Lab, image: Image) -> None:
        """The storage is changed behind the servers' back and is right again afterwards."""
        digest = image.layers[0]
        location = self.location(lab, digest)
        with lab.storage.corrupted(digest):
            wrong = lab.client.get(location).body
        with lab.storage.missing(digest):
            assert lab.client.get(location).status == 404
        assert len(wrong) == len(image.read(digest))
        assert wrong != image.read(digest)
        assert lab.client.get(location).body == image.read(digest)


class TestOrigin:
    URL = "https://origin.lab.test/file"
    BODY = bytes(range(256)) * 2000

    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            pytest.param("bytes=5-9", (206, BODY[5:10], "bytes 5-9/512000"), id="closed"),
            pytest.param("bytes=500000-", (206, BODY[500_000:], "bytes 500000-511999/512000"), id="open"),
            pytest.param("bytes=-3", (206, BODY[-3:], "bytes 511997-511999/512000"), id="suffix"),
            pytest.param("bytes=512000-", (416, b"", "bytes */512000"), id="beyond the end"),
        ],
    )
    def test_honours_ranges(self, lab: Lab, origin: Origin, field: str, expected: tuple[int, bytes, str]) -> None:
        """A reply without options is that of a good server."""
        origin.serve("/file", Reply(self.BODY))
        answer = lab.client.get(self.URL, {"Range": field})
        assert (answer.status, answer.body, answer.header("Content-Range")) == expected

    def test_can_ignore_ranges_and_miss_an_if_range(self, lab: Lab, origin: Origin) -> None:
        """A server without ranges and one whose file changed both send the whole body."""
        fields = {"Range": "bytes=5-9", "If-Range": '"old"'}
        origin.serve("/file", Reply(self.BODY, ranges=False), Reply(self.BODY, etag='"new"'))
        assert [lab.client.get(self.URL, fields).status for _ in range(2)] == [200, 200]
        assert lab.client.get(self.URL, {**fields, "If-Range": '"new"'}).status == 206

    def test_replies_in_turn_and_the_last_one_stays(self, lab: Lab, origin: Origin) -> None:
        """A script of failures ends with what is served from then on."""
        origin.serve("/file", Reply(status=503, headers={"Retry-After": "1"}), Reply(status=429), Reply(b"right"))
        answers = [lab.client.get(self.URL) for _ in range(4)]
        assert [answer.status for answer in answers] == [503, 429, 200, 200]
        assert answers[0].header("Retry-After") == "1"
        assert lab.client.get("https://origin.lab.test/unknown").status == 404

    @pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
    def test_cuts_after_exactly_so_many_bytes(self, lab: Lab, origin: Origin, chunked: bool) -> None:
        """The client gets all bytes before the cut, then an incomplete body, and the log has the count."""
        origin.serve("/file", Reply(self.BODY, cut_after_bytes=300_000, chunked=chunked), Reply(self.BODY))
        got = bytearray()
        with lab.client.stream("GET", self.URL) as response, contextlib.suppress(http.client.HTTPException, OSError):
            while piece := response.read1(10_000):
                got += piece
        assert bytes(got) == self.BODY[:300_000]
        assert lab.client.get(self.URL).body == self.BODY
        assert [request.body_bytes for request in origin.log.requests()] == [300_000, len(self.BODY)]

    def test_holds_a_body_until_the_gate_opens(self, lab: Lab, origin: Origin) -> None:
        """A client has the first part while the rest has not been sent."""
        gate = Gate()
        origin.serve("/file", Reply(self.BODY, hold_after_bytes=1000, gate=gate))
        with lab.client.stream("GET", self.URL) as response:
            first = response.read(1000)
            (request,) = origin.log.requests()
            assert request.body_bytes <= 1000
            gate.open()
            assert first + response.read() == self.BODY

    def test_a_stalled_body_ends_with_the_origin(self, lab: Lab, origin: Origin) -> None:
        """Without a gate the body waits until the origin is stopped, which cuts it."""
        origin.serve("/file", Reply(self.BODY, hold_after_bytes=1000))
        with lab.client.stream("GET", self.URL) as response:
            assert response.read(1000) == self.BODY[:1000]
            origin.stop()
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
        with pytest.raises(ConnectionRefusedError):
            lab.client.get(self.URL)
        origin.serve("/file", Reply(b"back"))
        origin.start()
        assert lab.client.get(self.URL).body == b"back"

    def test_a_throttled_body_is_still_on_its_way_after_its_first_byte(self, lab: Lab, origin: Origin) -> None:
        """At a rate that needs minutes for the whole, the first bytes come at once and the rest has not been sent."""
        origin.serve("/file", Reply(self.BODY, rate_bytes_per_s=4000))
        with lab.client.stream("GET", self.URL) as response:
            assert response.read(1) == self.BODY[:1]
            assert origin.log.requests()[0].body_bytes < len(self.BODY)

    def test_can_lie_about_the_size(self, lab: Lab, origin: Origin) -> None:
        """A body shorter than its Content-Length ends with the connection."""
        origin.serve("/file", Reply(b"short", announce_bytes=10))
        with pytest.raises(http.client.IncompleteRead):
            lab.client.get(self.URL)

    def test_is_a_registry_for_skopeo(
        self, origin: Origin, plain_skopeo: Skopeo, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """An image served by the scripted origin is pulled by a real client."""
        image = build_image(architectures=("amd64", "arm64"))
        origin.serve_image("library/scripted", "latest", image)
        plain_skopeo.pull("origin.lab.test/library/scripted:latest", tmp_path / "pulled", all_platforms=True)
        assert image.media_type == INDEX
        pulled = set(hash_files(tmp_path / "pulled").values())
        assert {digest.removeprefix("sha256:") for digest in (*image.manifests, *image.blobs)} <= pulled
        assert origin.log.count(method="GET", path_contains="/blobs/") == len(image.blobs)

    def test_two_origins_cannot_have_one_address(self, lab: Lab, origin: Origin) -> None:
        """A second server on the address is the lab's error, not a silent one."""
        with pytest.raises(LabError, match="Address already in use"):
            lab.origin(origin.name).start()


class TestProxyClass:
    """`Proxy` against an entrypoint of the test's own, so that its promises hold before those of the real one."""

    ENTRYPOINT = f"""#!{sys.executable}
import os, signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if os.environ.get("REFUSE"):
    sys.exit("REFUSE: no")
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
def stop(*_):
    child.kill()
    child.wait()
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("STUBBORN") else stop)
if os.environ.get("CARELESS"):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("settings", " ".join(sorted(os.environ)), flush=True)
HTTPServer((os.environ["LISTEN_HOST"], int(os.environ["LISTEN_PORT"])), Ready).serve_forever()
"""

    @pytest.fixture
    def make_proxy(
        self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[dict[str, str]], Proxy]:
        """Return what makes proxies that start ENTRYPOINT."""
        entrypoint = tmp_path / "entrypoint"
        entrypoint.write_text(self.ENTRYPOINT)
        entrypoint.chmod(entrypoint.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr("lab.proxy.ENTRYPOINT", entrypoint)
        return lambda settings: lab.proxy(tmp_path / "proxy", settings)

    def test_starts_ready_with_a_clean_environment_and_stops(
        self, make_proxy: Callable[[dict[str, str]], Proxy], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The proxy gets the lab's settings and nothing of the test's own environment; the exit code is its own."""
        monkeypatch.setenv("HTTPS_PROXY", "http://nowhere.invalid")
        with make_proxy({"ALLOW_PUSH": "true"}) as proxy:
            assert proxy.readiness() == 200
            assert proxy.request("GET", "/elsewhere").status == 404
            assert len(proxy.pids()) == 2
            assert proxy.rss_bytes() > 1_000_000
            assert {"ALLOW_PUSH", "UPSTREAM_MAPPINGS", "REGISTRIES"} <= set(proxy.log.split())
            assert "HTTPS_PROXY" not in proxy.log
            assert proxy.stop() == 3
            assert proxy.pids() == []
            assert proxy.restart().readiness() == 200

    def test_a_kill_ends_the_children_too(self, make_proxy: Callable[[dict[str, str]], Proxy]) -> None:
        """After `kill` no process of the proxy is left."""
        with make_proxy({}) as proxy:
            pids = proxy.pids()
            proxy.kill()
            with pytest.raises(ProcessLookupError):
                os.kill(pids[0], 0)
            assert not proxy.is_running

    def test_a_child_left_behind_is_an_error(self, make_proxy: Callable[[dict[str, str]], Proxy]) -> None:
        """A proxy that ends without its children fails the test, and they are ended."""
        with make_proxy({"CARELESS": "1"}) as proxy, pytest.raises(LabError, match="left"):
            proxy.stop()

    def test_a_proxy_that_does_not_stop_in_time_is_an_error(
        self, make_proxy: Callable[[dict[str, str]], Proxy], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """TERM without an end is reported and the proxy is ended."""
        monkeypatch.setattr("lab.proxy.STOP_LIMIT_S", 0.1)
        with make_proxy({"STUBBORN": "1"}) as proxy, pytest.raises(LabError, match="to stop"):
            proxy.stop()
        assert not proxy.is_running

    def test_a_refused_start_is_an_error_or_a_result(self, make_proxy: Callable[[dict[str, str]], Proxy]) -> None:
        """`start` raises with the printed reason, `start_refused` returns it with the exit code."""
        proxy = make_proxy({"REFUSE": "1"})
        with pytest.raises(LabError, match="REFUSE: no"):
            proxy.start()
        completed = proxy.start_refused()
        assert (completed.returncode, completed.stderr) == (1, "REFUSE: no\n")


class TestTools:
    def test_a_missing_program_names_its_debian_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No test is skipped for want of a program: the error says what to install."""
        monkeypatch.setattr("lab.programs.shutil.which", lambda *_, **__: None)
        with pytest.raises(LabError, match="apt-get install --no-install-recommends nginx-light"):
            find_program("nginx")

    def test_the_blind_proxy_refuses_what_is_not_of_the_lab(self, lab: Lab, blind_proxy: BlindProxy) -> None:
        """No test reaches a real registry through it."""
        with pytest.raises(OSError, match="403"):
            Client(ProxyRoute(blind_proxy.address, lab.pki.ca_file)).get("https://quay.io/v2/")

    def test_a_blob_written_to_the_storage_needs_no_push(self, lab: Lab) -> None:
        """The registry serves it under its repository by its digest."""
        digest = lab.storage.add_blob("library/written", random_chunks("written", 2_500_000))
        answer = lab.client.get(f"https://{lab.noauth.name}/v2/library/written/blobs/{digest}")
        assert f"sha256:{hashlib.sha256(answer.body).hexdigest()}" == digest

    def test_the_lab_served_by_hand_prints_its_settings_and_leaves_nothing(self, tmp_path: Path) -> None:
        """`python -m lab.serve` names every setting of the proxy and ends all servers on INT."""
        directory = tmp_path / "served"
        serving = subprocess.Popen(
            [sys.executable, "-m", "lab.serve", "--directory", str(directory), "--layer-bytes", "1000"],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with serving:
            watchdog = threading.Timer(60, serving.kill)
            watchdog.start()
            assert serving.stdout is not None
            printed = ""
            for line in serving.stdout:
                printed += line
                if "Ctrl-C" in line:
                    break
            serving.send_signal(signal.SIGINT)
            assert serving.wait(20) == 0
            watchdog.cancel()
            watchdog.join()
        assert all(f"export {name}=" in printed for name in ("UPSTREAM_MAPPINGS", "REGISTRIES", "TRUSTED_HOSTS"))
        assert str(directory) not in "".join(_command_lines())


def _command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_text(errors="replace"))
            except OSError:
                continue
    return found
