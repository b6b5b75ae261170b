"""What users of the predecessor build on: classes, statuses, fields and the log line, seen from outside."""

import hashlib
import re
import time
from collections.abc import Mapping

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.lab import CDN, Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.raw_http import connected, read_to_end, tunnelled

REGISTRY = "origin.lab.test"
pytestmark = pytest.mark.e2e

STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
CLASS = "X-Docker-Registry-Proxy-Cache-Type"
OCI = "application/vnd.oci.image.manifest.v1+json"
DIGEST = "sha256:" + "a" * 64
KEYS = [
    "access_time",
    "upstream_cache_status",
    "method",
    "uri",
    "request_type",
    "status",
    "bytes_sent",
    "upstream_response_time",
    "host",
    "proxy_host",
    "upstream",
    "client_ip",
    "user_agent",
    "bytes_upstream",
    "image",
    "error",
    "duration_s",
    "credential",
    "source",
    "request_id",
]


def manifest(origin: Origin, path: str, body: bytes = b'{"schemaVersion":2}') -> None:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    origin.serve(path, Reply(body, headers={"Content-Type": OCI, "Docker-Content-Digest": digest}))


@pytest.fixture(scope="module")
def proxies(start_module_proxy: StartProxy) -> Mapping[str, Proxy]:
    """Start a proxy for each value of `ENABLE_MANIFEST_CACHE`."""
    return {caching: start_module_proxy({"ENABLE_MANIFEST_CACHE": caching}) for caching in ("true", "false")}


@pytest.mark.usefixtures("origin")
@pytest.mark.parametrize(
    ("caching", "path", "wanted"),
    [
        ("true", f"/v2/a/blobs/{DIGEST}", "blob-by-digest"),
        ("true", "/v2/a/blobs/sha512:" + "a" * 128, "blob-mutable"),
        ("true", f"/v2/a/manifests/{DIGEST}", "manifest-by-digest"),
        ("true", "/v2/a/manifests/testing123", "manifest-primary"),
        ("true", "/v2/a/manifests/stable-alpine", "manifest-primary"),
        ("true", "/v2/a/manifests/v1.2", "manifest-secondary"),
        ("true", "/v2/a/manifests/2024", "manifest-secondary"),
        ("true", "/v2/a/manifests/v1", "manifest-default"),
        ("true", "/v2/a/manifests/latest", "manifest-default"),
        ("false", "/v2/a/manifests/v1.2", "manifest-default-disabled"),
        ("false", "/v2/", "unknown"),
        ("false", "/v2/a/tags/list", "unknown"),
        ("false", "/v2/_catalog", "unknown"),
        ("false", f"/v2/a/referrers/{DIGEST}", "unknown"),
        ("false", "/token", "unknown"),
        ("false", "/v1/_ping", ""),
    ],
)
def test_a_request_has_its_class_in_field_and_line(
    proxies: Mapping[str, Proxy], caching: str, path: str, wanted: str
) -> None:
    """The same word; a class without a word has no field, as nginx adds none that is empty."""
    proxy = proxies[caching]
    before = len(access_log(proxy))

    answer = proxy.client().get(f"https://{REGISTRY}{path}?account=me")

    (line,) = access_log(proxy, least=before + 1)[before:]
    assert (answer.headers[CLASS] or "") == line["request_type"] == wanted
    assert (answer.headers[STATUS] or "") == line["upstream_cache_status"]
    assert list(line) == KEYS
    assert (line["uri"], line["status"], line["host"]) == (path, str(answer.status), REGISTRY)


def test_statuses_mean_what_they_mean_in_nginx(start_proxy: StartProxy, origin: Origin) -> None:
    """MISS, HIT while fresh, REVALIDATED, EXPIRED for a new one, STALE in an outage."""
    proxy = start_proxy({"ENABLE_MANIFEST_CACHE": "true", "MANIFEST_CACHE_DEFAULT_TIME": "0s"})
    fresh, stale = "/v2/a/manifests/1.2.3", "/v2/a/manifests/latest"
    manifest(origin, fresh)
    manifest(origin, stale)

    def status_of(path: str) -> str:
        return proxy.client().get(f"https://{REGISTRY}{path}", {"Accept": OCI}).header(STATUS)

    seen = [status_of(path) for path in (fresh, fresh, stale, stale)]
    manifest(origin, stale, b'{"schemaVersion":2,"moved":true}')
    seen.append(status_of(stale))
    origin.stop()
    seen.append(status_of(stale))

    assert seen == ["MISS", "HIT", "MISS", "REVALIDATED", "EXPIRED", "STALE"]
    assert [line["upstream_cache_status"] for line in access_log(proxy, least=len(seen))] == seen


def test_a_redirected_blob_is_logged_with_both_hops(lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
    """`proxy_host` is the CDN, addresses and times are joined; a hit asks nobody."""
    image = build_image(layers=1, layer_bytes=200_000)
    lab.push(image, "contract/hops")
    digest = max(image.blobs, key=lambda each: len(image.read(each)))
    url = f"https://{lab.redirect.name}/v2/contract/hops/blobs/{digest}"
    assert proxy.client().get(url).body == image.read(digest)
    kept = f"content/*/*/{digest.removeprefix('sha256:')}"
    while not any(proxy.cache_directory.glob(kept)):  # the client has the last byte before the file has its place
        time.sleep(0.01)
    assert proxy.client().get(url).body == image.read(digest)

    miss, hit = access_log(proxy, least=2)
    addresses = [str(lab.addresses[name]) for name in ("redirect.lab.test", CDN)]
    assert miss["proxy_host"] == CDN
    assert miss["upstream"] == " : ".join(addresses)
    assert re.fullmatch(r"\d+\.\d{3} : \d+\.\d{3}", miss["upstream_response_time"])
    assert miss["bytes_upstream"] == miss["bytes_sent"] == str(len(image.read(digest)))
    assert (hit["upstream_cache_status"], hit["proxy_host"]) == ("HIT", "redirect.lab.test")
    assert hit["upstream"] == hit["upstream_response_time"] == hit["bytes_upstream"] == ""


def test_what_passes_through_is_logged_with_its_upstream_and_bytes(lab: Lab, proxy: Proxy, origin: Origin) -> None:
    """Also a body of unknown length."""
    origin.serve("/v2/_catalog", Reply(b'{"tags":[]}', chunked=True))
    proxy.client().get(f"https://{REGISTRY}/v2/_catalog")

    (line,) = access_log(proxy, least=1)
    assert line["upstream"] == str(lab.addresses[REGISTRY])
    assert re.fullmatch(r"\d+\.\d{3}", line["upstream_response_time"])
    assert line["bytes_sent"] == line["bytes_upstream"] == "11"


def test_a_tunnel_and_the_proxys_own_pages_have_no_line(proxy: Proxy) -> None:
    """As with the predecessor; a CONNECT that is refused is said in words."""
    proxy.request("GET", "/")
    with connected(proxy.address) as connection:
        connection.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
        assert b" 403 " in read_to_end(connection).split(b"\r\n")[0]

    assert access_log(proxy) == []
    assert "CONNECT '127.0.0.1:1' is refused with 403" in proxy.log


def test_no_line_shows_a_query_a_credential_or_a_control_character(proxy: Proxy, origin: Origin) -> None:
    """Whatever the client sends."""
    origin.serve("/token", Reply(b"{}"))
    proxy.client().get(
        f"https://{REGISTRY}/token?sig=s3cret", {"Authorization": "Bearer s3cret", "User-Agent": 'a\tb"\x9b31m\xe9'}
    )

    (line,) = access_log(proxy, least=1)
    assert line["uri"] == "/token"
    assert "s3cret" not in proxy.log
    assert all(each.isprintable() for each in proxy.log.splitlines())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_refused_write_is_405_in_the_predecessors_words(proxy: Proxy, origin: Origin, method: str) -> None:
    """With the class of what it was for."""
    answer = proxy.client().request(method, f"https://{REGISTRY}/v2/a/blobs/uploads/")

    assert (answer.status, answer.body) == (405, f"{method} method is not allowed".encode())
    assert answer.headers[CLASS] == "blob-mutable"
    assert origin.log.count() == 0


def test_an_excepted_host_is_tunnelled(lab: Lab, start_proxy: StartProxy, origin: Origin) -> None:
    """Its own certificate comes through, and no line is written; the others stay intercepted."""
    proxy = start_proxy({"REGISTRIES": f"*.lab.test -{REGISTRY}"})
    origin.serve("/v2/", Reply(b"{}"))
    with tunnelled(proxy.address, f"{REGISTRY}:443", lab.pki.ca_file) as connection:
        connection.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {REGISTRY}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    assert access_log(proxy) == []
    assert proxy.client().get("https://origin2.lab.test/v1/").status == 405


def test_pushing_with_ones_own_login(start_proxy: StartProxy, origin: Origin) -> None:
    """`ALLOW_PUSH_WITH_OWN_AUTH` lets through who says who they are; the operator's login is not theirs."""
    proxy = start_proxy({"ALLOW_PUSH_WITH_OWN_AUTH": "true", "AUTH_REGISTRIES": f"{REGISTRY}:alice:secret"})
    url = f"https://{REGISTRY}/v2/a/blobs/uploads/"
    origin.serve("/v2/a/blobs/uploads/", Reply(b"", 202))

    assert proxy.client().request("POST", url).status == 405
    assert proxy.client().request("POST", url, {"Authorization": "Bearer mine"}).status == 202
    assert [request.authorization for request in origin.log.requests()] == ["Bearer"]


def test_the_forks_fields_have_the_forks_names(start_proxy: StartProxy, origin: Origin) -> None:
    """`COMPAT=gmarcy`."""
    manifest(origin, "/v2/a/manifests/latest")
    answer = start_proxy({"COMPAT": "gmarcy"}).client().get(f"https://{REGISTRY}/v2/a/manifests/latest")

    assert answer.header("X-Container-Registry-Proxy-Cache-Upstream-Status") == "MISS"
    assert answer.header("X-Container-Registry-Proxy-Cache-Type") == "manifest-default-disabled"
    assert STATUS not in answer.headers
