"""The mirror door on real parts: what its clients get, what the registries see of them, and what they share."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.addresses import Address
from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import Response
from lab.image import MANIFEST, Image, random_chunks
from lab.lab import HUB, Lab
from lab.origin import Reply
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

REGISTRY = "noauth.lab.test"
STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
ACCEPT = {"Accept": MANIFEST}
WRONG_LOGIN = {"Authorization": "Basic bm9ib2R5OndyaXRlcyB0aGlz"}


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for this file: each test has content of its own."""
    settings = {"ENABLE_MANIFEST_CACHE": "true", "AUTH_REGISTRIES": "basic.lab.test:alice:secret"}
    with lab.proxy(tmp_path_factory.mktemp("proxy"), settings) as running:
        yield running


class Content:
    """A blob in the storage that the lab's registries share, and how it is asked for."""

    def __init__(self, lab: Lab, seed: str, size_bytes: int = 200_000) -> None:
        self.name = f"mirror/{seed}"
        self.body = b"".join(random_chunks(f"mirror {seed}", size_bytes))
        self.digest = lab.storage.add_blob(self.name, [self.body])
        self.rest = f"{self.name}/blobs/{self.digest}"
        self.path = f"/v2/{self.rest}"


def assert_error(answer: Response, status: int, code: str) -> None:
    """Expect an error in the form that clients of registries read."""
    assert (answer.status, answer.header("Content-Type").partition(";")[0]) == (status, "application/json")
    (error,) = json.loads(answer.body)["errors"]
    assert error["code"] == code


def until_hit(ask: Callable[[], Response]) -> Response:
    """Ask until the answer is a hit: a blob is stored a moment after its last byte has been sent."""
    deadline_s = time.monotonic() + 20
    while (answer := ask()).header(STATUS) != "HIT":
        assert time.monotonic() < deadline_s, dict(answer.headers)
    return answer


class TestForms:
    @pytest.mark.parametrize(
        ("form", "namespace"),
        [
            ("/v2/{rest}?ns=noauth.lab.test", "noauth.lab.test"),
            ("/v2/noauth.lab.test/{rest}", "noauth.lab.test"),
            ("/v2/noauth.lab.test:443/{rest}", "noauth.lab.test:443"),
            ("/v2/noauth.lab.test/{rest}?ns=noauth.lab.test", "noauth.lab.test"),
        ],
    )
    def test_each_form_leads_to_the_registry_once(self, lab: Lab, proxy: Proxy, form: str, namespace: str) -> None:
        """A miss and a hit have the same content, and say which registry it is from."""
        content = Content(lab, f"form-{len(form)}")
        mark = lab.noauth.log.mark()
        target = form.format(rest=content.rest)
        answers = [proxy.request("GET", target), until_hit(lambda: proxy.request("GET", target))]
        assert [(answer.status, answer.body) for answer in answers] == [(200, content.body)] * 2
        assert [answer.header("OCI-Namespace") for answer in answers] == [namespace] * 2
        assert answers[0].header(STATUS) == "MISS"
        assert [request.target for request in mark.requests()] == [content.path]

    def test_without_a_registry_it_is_docker_hub(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Docker's `registry-mirrors`: tokens and the CDN are the proxy's business, nothing redirects the client."""
        image = build_image()
        lab.push(image, "library/mirrored")
        assert lab.hub
        manifest = proxy.request("GET", "/v2/library/mirrored/manifests/latest", ACCEPT)
        assert (manifest.status, manifest.header("Docker-Content-Digest")) == (200, image.digest)
        assert manifest.header("OCI-Namespace") == "docker.io"
        for digest in image.blobs:
            blob = proxy.request("GET", f"/v2/library/mirrored/blobs/{digest}")
            assert (blob.status, blob.body) == (200, image.read(digest))

    def test_the_default_registry_can_be_another(self, lab: Lab, start_proxy: StartProxy) -> None:
        """An office's own registry, say."""
        content = Content(lab, "default")
        answer = start_proxy({"DEFAULT_REGISTRY": REGISTRY}).request("GET", content.path)
        assert (answer.status, answer.body, answer.header("OCI-Namespace")) == (200, content.body, REGISTRY)

    def test_a_registry_may_be_mirrored_only(self, lab: Lab, start_proxy: StartProxy) -> None:
        """With MIRROR_REGISTRIES the two doors have each its own list."""
        content = Content(lab, "only")
        proxy = start_proxy({"REGISTRIES": "other.lab.test", "MIRROR_REGISTRIES": f"{REGISTRY} docker.io"})
        assert proxy.request("GET", f"/v2/{REGISTRY}/{content.rest}").body == content.body
        assert_error(proxy.request("GET", "/v2/other.lab.test/a/manifests/b"), 404, "NAME_UNKNOWN")

    def test_the_door_can_be_closed(self, start_proxy: StartProxy) -> None:
        """Nothing is mirrored then; clients go on to the registry."""
        proxy = start_proxy({"MIRROR_REGISTRIES": "none"})
        for target in ("/v2/", "/v2/library/alpine/manifests/latest"):
            assert_error(proxy.request("GET", target), 404, "UNSUPPORTED")


class TestBothDoors:
    def test_what_came_by_one_door_is_a_hit_by_the_other(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Docker Hub has several names, and one place in the cache."""
        first, second = build_image("first"), build_image("second")
        lab.push(first, "library/first")
        lab.push(second, "library/second")
        assert lab.hub
        url, client = f"https://{HUB}/v2/library", proxy.client()
        layer = second.blobs[0]
        client.get(f"{url}/first/manifests/latest", ACCEPT)
        proxy.request("GET", "/v2/library/second/manifests/latest?ns=docker.io", ACCEPT)
        proxy.request("GET", f"/v2/docker.io/library/second/blobs/{layer}")
        mark = lab.hub.log.mark()
        answers = [
            proxy.request("GET", "/v2/library/first/manifests/latest?ns=docker.io", ACCEPT),
            proxy.request("GET", "/v2/index.docker.io/library/first/manifests/latest", ACCEPT),
            client.get(f"{url}/second/manifests/latest", ACCEPT),
            until_hit(lambda: client.get(f"{url}/second/blobs/{layer}")),
        ]
        assert [(answer.status, answer.header(STATUS)) for answer in answers] == [(200, "HIT")] * 4
        assert mark.requests() == []

    def test_the_log_says_what_it_says_of_the_proxy_door(self, lab: Lab, proxy: Proxy) -> None:
        """Registry, path and image are the same, cold and warm, whatever the form was."""
        content = Content(lab, "log")
        proxy.request("GET", f"{content.path}?ns={REGISTRY}")
        until_hit(lambda: proxy.request("GET", f"/v2/{REGISTRY}/{content.rest}"))
        proxy.client().get(f"https://{REGISTRY}{content.path}")
        lines = access_log(proxy, content.path, least=3)
        assert {line["upstream_cache_status"] for line in (lines[0], *lines[-2:])} == {"MISS", "HIT"}
        for key, value in {"host": REGISTRY, "proxy_host": REGISTRY, "image": content.name, "method": "GET"}.items():
            assert {line[key] for line in lines} == {value}
        assert {line["bytes_sent"] for line in lines} == {str(len(content.body))}


class TestReads:
    def test_a_range_is_a_part(self, lab: Lab, proxy: Proxy) -> None:
        """Cold and warm."""
        content = Content(lab, "range")
        for _ in range(2):
            answer = proxy.request("GET", f"{content.path}?ns={REGISTRY}", {"Range": "bytes=5-9"})
            assert (answer.status, answer.body) == (206, content.body[5:10])
            assert answer.header("Content-Range") == f"bytes 5-9/{len(content.body)}"

    def test_one_connection_serves_what_is_at_hand_and_what_is_not(self, lab: Lab, proxy: Proxy) -> None:
        """The door's own `/v2/`, a hit, a miss, the miss once more, a page of the proxy, and a hit at the end."""
        warm, cold = Content(lab, "connection-warm"), Content(lab, "connection-cold")
        proxy.request("GET", f"/v2/{REGISTRY}/{warm.rest}")
        connection = http.client.HTTPConnection(*proxy.address, timeout=30)
        for target, expected in (
            ("/v2/", b"{}"),
            (f"/v2/{REGISTRY}/{warm.rest}", warm.body),
            (f"/v2/{REGISTRY}/{warm.rest}", warm.body),
            ("/v2/", b"{}"),
            (f"/v2/{REGISTRY}/{cold.rest}", cold.body),
            (f"/v2/{REGISTRY}/{cold.rest}", cold.body),
            ("/readyz", b"ready\n"),
            (f"/v2/{REGISTRY}/{warm.rest}", warm.body),
        ):
            connection.request("GET", target)
            answer = connection.getresponse()
            assert (target, answer.status, answer.read()) == (target, 200, expected)
        connection.close()

    @pytest.mark.parametrize("target", ["/v2/", "/v2", "/v2/?ns=docker.io", "/v2/?ns=nowhere.test"])
    def test_the_root_is_the_doors_own(self, proxy: Proxy, target: str) -> None:
        """Clients ask it first, and Docker and podman want no challenge: no registry is asked, no line is logged."""
        for method in ("GET", "HEAD"):
            answer = proxy.request(method, target)
            assert (answer.status, answer.header("Docker-Distribution-Api-Version")) == (200, "registry/2.0")
            assert answer.headers["WWW-Authenticate"] is None
        assert access_log(proxy, target.partition("?")[0]) == []

    def test_links_lead_through_the_door(self, start_origin: StartOrigin, proxy: Proxy) -> None:
        """A registry names its next page, or a blob's other place, by its own path: here that is another registry's."""
        with start_origin("origin.lab.test") as origin, start_origin("origin2.lab.test") as storage:
            blob = f"/v2/a/blobs/sha256:{'0' * 64}"
            storage.serve("/x", Reply(b"", 405))  # answers no HEAD, so that the client gets the redirect
            origin.serve("/v2/a/tags/list", Reply(b"[]", headers={"Link": '</v2/a/tags/list?last=b&n=1>; rel="next"'}))
            origin.serve(blob, Reply(b"", 307, headers={"Location": "/v2/a/other?sig=1"}))
            origin.serve("/v2/a/other", Reply(b"", 307, headers={"Location": "https://origin2.lab.test/x"}))
            tags = proxy.request("GET", "/v2/a/tags/list?n=1&ns=origin.lab.test")
            head = proxy.request("HEAD", f"{blob}?ns=origin.lab.test")
            asked = [request.target for request in origin.log.requests()]
        assert tags.header("Link") == '</v2/origin.lab.test/a/tags/list?last=b&n=1>; rel="next"'
        assert (head.status, head.header("Location")) == (307, "/v2/origin.lab.test/a/other?sig=1")
        assert set(asked) == {"/v2/a/tags/list?n=1", blob, "/v2/a/other?sig=1"}


class TestRefusals:
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_nothing_is_written(self, lab: Lab, proxy: Proxy, method: str) -> None:
        """Whatever ALLOW_PUSH says: a mirror is for pulls."""
        mark = lab.noauth.log.mark()
        for target in ("mirror/a/blobs/uploads/", "mirror/a/manifests/latest"):
            answer = proxy.request(method, f"/v2/{REGISTRY}/{target}", body=b"x" * 1000)
            assert_error(answer, 405, "UNSUPPORTED")
        assert mark.requests() == []

    @pytest.mark.parametrize(
        "target",
        [
            "/v2/library/alpine/manifests/latest?ns=nowhere.test",
            "/v2/nowhere.test/library/alpine/manifests/latest",
            "/v2/127.0.0.1:5000/library/alpine/manifests/latest",
            "/v2/library/alpine/manifests/latest?ns=a%20b",
        ],
    )
    def test_what_is_no_registry_of_the_operators_is_not_found(self, proxy: Proxy, target: str) -> None:
        """Clients go on to the registry itself at a 404; the proxy asks nobody."""
        assert_error(proxy.request("GET", target), 404, "NAME_UNKNOWN")

    def test_a_silent_registry_is_a_gateway_error(self, start_origin: StartOrigin, proxy: Proxy) -> None:
        """With nothing stored there is nothing to serve; clients go on at each status of 400 and above."""
        with start_origin("origin.lab.test"):
            pass
        answer = proxy.request("GET", "/v2/origin.lab.test/mirror/none/manifests/latest", ACCEPT)
        assert_error(answer, 502, "UNAVAILABLE")


class TestCredentials:
    def test_what_a_client_sends_goes_no_further(self, lab: Lab, proxy: Proxy) -> None:
        """It was meant for the proxy's address: manifests, blobs and lists are asked for without it."""
        content = Content(lab, "no-further")
        mark = lab.noauth.log.mark()
        for rest in (content.rest, f"{content.name}/manifests/none", f"{content.name}/tags/list"):
            proxy.request("GET", f"/v2/{REGISTRY}/{rest}", WRONG_LOGIN)
        assert [request.authorization for request in mark.requests()] == ["", "", ""]

    def test_the_operators_login_is_used(self, lab: Lab, proxy: Proxy) -> None:
        """Also for a client that sends another one."""
        content = Content(lab, "login")
        assert lab.basic
        answer = proxy.request("GET", f"/v2/basic.lab.test/{content.rest}", WRONG_LOGIN)
        assert (answer.status, answer.body) == (200, content.body)

    def test_no_challenge_is_passed_on(self, lab: Lab, start_proxy: StartProxy) -> None:
        """A client would answer it with what it has for the mirror: to the wrong one, and in the clear."""
        content = Content(lab, "challenge")
        assert lab.basic
        proxy = start_proxy()
        for rest in (content.rest, f"{content.name}/manifests/latest", f"{content.name}/tags/list"):
            answer = proxy.request("GET", f"/v2/basic.lab.test/{rest}")
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (403, None)

    def test_a_proxy_with_logins_wants_one_here_too(self, lab: Lab, start_proxy: StartProxy) -> None:
        """As Basic to the mirror itself, since there is no CONNECT to log in at; what is warm is no exception."""
        content = Content(lab, "proxy-login")
        proxy = start_proxy({"PROXY_AUTH": "carol:geheim"})
        right = {"Authorization": "Basic Y2Fyb2w6Z2VoZWlt"}
        target = f"/v2/{REGISTRY}/{content.rest}"
        mark = lab.noauth.log.mark()
        for _ in range(2):
            assert [proxy.request("GET", path, right).status for path in ("/v2/", target)] == [200, 200]
        for fields in ({}, WRONG_LOGIN, {"Proxy-Authorization": right["Authorization"]}):
            for path in ("/v2/", target):
                answer = proxy.request("GET", path, fields)
                assert_error(answer, 401, "UNAUTHORIZED")
                assert answer.header("WWW-Authenticate") == 'Basic realm="registry-proxy"'
        assert [request.authorization for request in mark.requests()] == [""]


class TestTls:
    @pytest.mark.parametrize("name", ["proxy.lab.test", "127.0.0.1"])
    def test_a_client_that_trusts_the_ca_may_use_https(self, lab: Lab, start_proxy: StartProxy, name: str) -> None:
        """By whatever name it knows the proxy, or by its address; plain HTTP goes on beside it."""
        content = Content(lab, f"tls-{len(name)}")
        proxy = start_proxy({"MIRROR_TLS": "true"})
        target = f"/v2/{REGISTRY}/{content.rest}"
        for _ in range(2):
            assert https(proxy, name, target) == (200, content.body)
        assert https(proxy, name, "/v2/") == (200, b"{}")
        assert proxy.request("GET", target).body == content.body

    def test_without_it_there_is_no_tls(self, proxy: Proxy) -> None:
        """A client that tries https first, as podman does with `insecure`, is told at once."""
        with pytest.raises(ssl.SSLError):
            https(proxy, "proxy.lab.test", "/v2/")


def https(proxy: Proxy, name: str, target: str) -> tuple[int, bytes]:
    """Ask the proxy itself over TLS, as a host of this name."""
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    connection = http.client.HTTPSConnection(*proxy.address, timeout=30, context=context)
    http.client.HTTPConnection.connect(connection)
    try:
        connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class TestSkopeo:
    @pytest.fixture
    def image(self, lab: Lab, build_image: MakeImage) -> Image:
        """Push an image."""
        image = build_image()
        lab.push(image, "mirror/skopeo")
        return image

    def pull(self, lab: Lab, mirror: Address, directory: Path) -> dict[str, str]:
        """Pull with a mirror in `registries.conf`, and the registry's own address behind it."""
        directory.mkdir(exist_ok=True)
        configuration = directory / "registries.conf"
        configuration.write_text(
            f'[[registry]]\nprefix = "{REGISTRY}"\nlocation = "{lab.noauth.address}"\n'
            f'[[registry.mirror]]\nlocation = "{mirror}/{REGISTRY}"\ninsecure = true\n'
        )
        skopeo = Skopeo(directory / "home", lab.pki.ca_file)
        reference = f"docker://{REGISTRY}/mirror/skopeo:latest"
        skopeo.run(["copy", "--registries-conf", str(configuration), reference, f"dir:{directory / 'image'}"])
        return hash_files(directory / "image")

    def test_it_pulls_through_the_mirror(self, lab: Lab, proxy: Proxy, image: Image, tmp_path: Path) -> None:
        """The second pull asks the registry for nothing."""
        expected = {digest.removeprefix("sha256:") for digest in (image.digest, *image.blobs)}
        assert expected <= set(self.pull(lab, proxy.address, tmp_path / "cold").values())
        mark = lab.noauth.log.mark()
        assert expected <= set(self.pull(lab, proxy.address, tmp_path / "warm").values())
        assert mark.requests() == []

    def test_it_logs_in_where_the_proxy_wants_it(
        self, lab: Lab, start_proxy: StartProxy, image: Image, tmp_path: Path
    ) -> None:
        """With what its `auth.json` has for the mirror; without, the registry itself is asked."""
        expected = {digest.removeprefix("sha256:") for digest in (image.digest, *image.blobs)}
        proxy = start_proxy({"PROXY_AUTH": "carol:geheim"})
        assert expected <= set(self.pull(lab, proxy.address, tmp_path / "without").values())
        assert '"status":"200"' not in proxy.log
        (tmp_path / "with/home").mkdir(parents=True)
        login = {"auths": {str(proxy.address): {"auth": "Y2Fyb2w6Z2VoZWlt"}}}
        (tmp_path / "with/home/auth.json").write_text(json.dumps(login))
        mark = lab.noauth.log.mark()
        assert expected <= set(self.pull(lab, proxy.address, tmp_path / "with").values())
        assert {line["status"] for line in access_log(proxy, "/v2/mirror/skopeo/manifests/latest", least=1)} == {"200"}
        assert {request.authorization for request in mark.requests()} == {""}

    def test_it_goes_on_to_the_registry(self, lab: Lab, start_proxy: StartProxy, image: Image, tmp_path: Path) -> None:
        """When the proxy does not run, and when it does not mirror this registry."""
        expected = {digest.removeprefix("sha256:") for digest in (image.digest, *image.blobs)}
        stopped = start_proxy(start=False)
        assert expected <= set(self.pull(lab, stopped.address, tmp_path / "stopped").values())
        closed = start_proxy({"MIRROR_REGISTRIES": "none"})
        assert expected <= set(self.pull(lab, closed.address, tmp_path / "closed").values())
