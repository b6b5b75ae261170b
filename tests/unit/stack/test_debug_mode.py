"""How a request is described in debug mode."""

import pytest
from mitmproxy import flow
from mitmproxy.test import tflow
from mitmproxy.utils.emoji import emoji

from regproxy.oci.endpoint import parse_endpoint
from regproxy.oci.names import Registry
from regproxy.origin.observer import TracedAnswer, TracedRequest
from regproxy.policy.tiers import RequestClass
from regproxy.stack.debug_mode import ERROR_MARKER, MARKERS, UPSTREAM_MARKER, comment_of, marker_of, upstream_flow
from regproxy.stack.exchange import CacheStatus, Exchange

DIGEST = "sha256:" + "a" * 64


def exchange(path: str, request_class: RequestClass, status: CacheStatus, error: str | None = None) -> Exchange:
    return Exchange(
        Registry("quay.io", 443),
        "https",
        parse_endpoint("GET", path),
        request_class,
        authorization="Basic hunter2",
        cache_status=status,
        error=error,
    )


@pytest.mark.parametrize(
    ("path", "request_class", "status", "error", "comment"),
    [
        (
            f"/v2/a/b/blobs/{DIGEST}",
            RequestClass.BLOB_BY_DIGEST,
            CacheStatus.HIT,
            None,
            "HIT blob-by-digest quay.io/a/b",
        ),
        (
            "/v2/a/manifests/t",
            RequestClass.MANIFEST_DEFAULT,
            CacheStatus.MISS,
            None,
            "MISS manifest-default quay.io/a:t",
        ),
        (
            f"/v2/a/manifests/{DIGEST}",
            RequestClass.MANIFEST_BY_DIGEST,
            CacheStatus.STALE,
            "timed out",
            f"STALE manifest-by-digest quay.io/a@{DIGEST}: timed out",
        ),
        ("/v2/", RequestClass.UNKNOWN, CacheStatus.NONE, None, "unknown quay.io"),
    ],
)
def test_the_comment_says_what_the_cache_did_with_what(
    path: str, request_class: RequestClass, status: CacheStatus, error: str | None, comment: str
) -> None:
    """Words that mitmweb's filter `~comment` finds."""
    assert comment_of(exchange(path, request_class, status, error)) == comment


def test_a_request_to_no_registry_has_no_comment() -> None:
    """It is only forwarded."""
    assert comment_of(None) == ""


def test_every_status_has_a_marker_that_mitmproxy_knows() -> None:
    """An unknown name is shown as a red circle, which is an error's."""
    assert set(MARKERS) == set(CacheStatus)
    assert {*filter(None, MARKERS.values()), ERROR_MARKER, UPSTREAM_MARKER} <= set(emoji)


def test_an_error_has_the_marker_of_errors() -> None:
    """Whatever the cache did before."""
    original = tflow.tflow()
    hit = exchange("/v2/", RequestClass.UNKNOWN, CacheStatus.HIT)
    assert marker_of(original, hit) == MARKERS[CacheStatus.HIT]

    original.error = flow.Error("cut")

    assert marker_of(original, hit) == ERROR_MARKER


def test_our_own_request_looks_like_one_of_mitmproxys() -> None:
    """Same id through its life, so that its line in the list is brought up to date."""
    request = TracedRequest("GET", "https", "quay.io", 443, "/v2/", (("Accept", "a"),))
    begun = upstream_flow(request)
    request.answer = TracedAnswer(200, "OK", (("Content-Length", "2"),), ("192.0.2.1", 443), request.at_s + 1)
    ended = upstream_flow(request)

    assert begun.id == ended.id == request.id
    assert begun.response is None
    assert ended.request.pretty_url == "https://quay.io/v2/"
    assert ended.response is not None
    assert (ended.response.status_code, ended.response.headers["Content-Length"]) == (200, "2")
    assert ended.server_conn.peername == ("192.0.2.1", 443)
