"""Request targets: what is content, what is refused, what is left alone."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import (
    V1,
    Blob,
    BlobUpload,
    Catalog,
    Endpoint,
    EndpointError,
    Manifest,
    Other,
    Ping,
    Referrers,
    Tags,
    build_path,
    parse_endpoint,
)
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Tag

HEX = "a" * 64
DIGEST = Digest("sha256", HEX)

_COMPONENTS = st.sampled_from(
    ["a", "library", "blobs", "manifests", "tags", "uploads", "list", "v2", "a.b_c-d", "x__y"]
)
_NAMES = st.lists(_COMPONENTS, min_size=1, max_size=5).map("/".join)
_DIGESTS = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
_TAGS = st.from_regex(re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}", re.ASCII | re.IGNORECASE), fullmatch=True).map(Tag)


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("/v2/?ns=docker.io", Ping()),
        ("/v2/_catalog?n=100", Catalog()),
        (f"/v2/library/alpine/blobs/sha256:{HEX}", Blob("library/alpine", DIGEST)),
        (f"/v2/alpine/blobs/sha256%3A{HEX}", Blob("alpine", DIGEST)),
        (f"/v2/alpine/blobs/sha256%3a{HEX}?ns=docker.io", Blob("alpine", DIGEST)),
        ("/v2/alpine/blobs/sha512:" + "b" * 128, Blob("alpine", Digest("sha512", "b" * 128))),
        ("/v2/alpine/manifests/latest", Manifest("alpine", Tag("latest"))),
        ("/v2/ghcr.io/o/r/manifests/v1?ns=x", Manifest("ghcr.io/o/r", Tag("v1"))),
        ("/v2/alpine/manifests/lat%65st", Manifest("alpine", Tag("latest"))),
        (f"/v2/alpine/manifests/sha256:{HEX}", Manifest("alpine", DIGEST)),
        (f"/v2/alpine/manifests/sha256-{HEX}", Manifest("alpine", Tag(f"sha256-{HEX}"))),
        ("/v2/a/blobs/b/manifests/c", Manifest("a/blobs/b", Tag("c"))),
        ("/v2/a/manifests/b/manifests/c", Manifest("a/manifests/b", Tag("c"))),
        ("/v2/a/tags/list/tags/list", Tags("a/tags/list")),
        ("/v2/alpine/tags/list?n=5", Tags("alpine")),
        (f"/v2/alpine/referrers/sha256:{HEX}?artifactType=x", Referrers("alpine", DIGEST)),
        ("/v2/alpine/blobs/uploads/", BlobUpload("alpine")),
        ("/v2/alpine/blobs/uploads", BlobUpload("alpine")),
        (f"/v2/alpine/blobs/uploads/?mount=sha256:{HEX}&from=b", BlobUpload("alpine")),
        ("/v2/alpine/blobs/uploads/0a-1b?_state=x%2Fy", BlobUpload("alpine")),
        ("/v2/alpine/blobs/uploads/a/session/of/many/parts", BlobUpload("alpine")),
        ("/v1/_ping", V1()),
        ("/v1", V1()),
        ("/v1/repositories/foo/images", V1()),
        ("/v10/x", Other("/v10/x")),
        ("/", Other("/")),
        ("/token?service=x", Other("/token")),
        ("/v2/token?scope=repository:a:pull", Other("/v2/token")),
        ("/v2/auth", Other("/v2/auth")),
        ("/v2/alpine", Other("/v2/alpine")),
        ("/v2/alpine/tags/", Other("/v2/alpine/tags/")),
        ("/api/v4/projects/group%2Fproject", Other("/api/v4/projects/group%2Fproject")),
        ("*", Other("*")),
        ("registry:443", Other("registry:443")),
    ],
)
def test_a_target_addresses_its_endpoint(target: str, endpoint: Endpoint) -> None:
    """Each path of the specification, and whatever else hosts serve, is recognised for a GET."""
    assert parse_endpoint("GET", target) == endpoint


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (f"/v2/Alpine/blobs/sha256:{HEX}", ErrorCode.NAME_INVALID),
        (f"/v2//blobs/sha256:{HEX}", ErrorCode.NAME_INVALID),
        (f"/v2/blobs/sha256:{HEX}", ErrorCode.NAME_INVALID),
        (f"/v2/a//b/blobs/sha256:{HEX}", ErrorCode.NAME_INVALID),
        (f"/v2/library%2Falpine/blobs/sha256:{HEX}", ErrorCode.NAME_INVALID),
        ("/v2/a%5Cb/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/a%00/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/a\x00/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/a%2541/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/../a/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/a/./manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/%2e%2E/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/a/manifests/%2F%2F..%2Fb", ErrorCode.NAME_INVALID),
        ("/x/../v2/a/manifests/latest", ErrorCode.NAME_INVALID),
        ("/web/a%2F..%2Fb", ErrorCode.NAME_INVALID),
        ("/web/a%00b", ErrorCode.NAME_INVALID),
        ("/v2/a/manifests/..", ErrorCode.NAME_INVALID),
        ("/v2/ä/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/a:5000/b/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/" + "a" * 256 + "/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/Alpine/blobs/uploads/", ErrorCode.NAME_INVALID),
        ("/v2/Alpine/tags/list", ErrorCode.NAME_INVALID),
        ("/v2/a/blobs/", ErrorCode.DIGEST_INVALID),
        ("/v2/a/blobs", ErrorCode.DIGEST_INVALID),
        ("/v2/a/blobs/latest", ErrorCode.DIGEST_INVALID),
        (f"/v2/a/blobs/SHA256:{HEX}", ErrorCode.DIGEST_INVALID),
        ("/v2/a/blobs/md5:" + "a" * 32, ErrorCode.DIGEST_INVALID),
        ("/v2/a/blobs/sha256:" + "A" * 64, ErrorCode.DIGEST_INVALID),
        (f"/v2/a/blobs/sha256%253A{HEX}", ErrorCode.DIGEST_INVALID),
        (f"/v2/a/blobs/sha256:{HEX}/", ErrorCode.DIGEST_INVALID),
        (f"/v2/a/blobs/sha256:{HEX}/x", ErrorCode.DIGEST_INVALID),
        ("/v2/a/manifests/sha256:abc", ErrorCode.DIGEST_INVALID),
        ("/v2/a/referrers/latest", ErrorCode.DIGEST_INVALID),
        ("//v2/alpine/manifests/latest", ErrorCode.NAME_INVALID),
        ("/V2/alpine/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2%2Falpine/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2%252Falpine/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2;x/alpine/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2\\alpine/manifests/latest", ErrorCode.NAME_INVALID),
        ("/v2/alpine/tags/list/", ErrorCode.NAME_INVALID),
        ("/v2/a/manifests/", ErrorCode.MANIFEST_INVALID),
        ("/v2/a/manifests", ErrorCode.MANIFEST_INVALID),
        ("/v2/a/manifests/.hidden", ErrorCode.MANIFEST_INVALID),
        ("/v2/a/manifests/" + "x" * 129, ErrorCode.MANIFEST_INVALID),
        ("/v2/a/manifests/b/c", ErrorCode.MANIFEST_INVALID),
        ("/v2/a/manifests/%ff", ErrorCode.MANIFEST_INVALID),
        ("/v2/a/manifests/a%20b", ErrorCode.MANIFEST_INVALID),
    ],
    ids=ascii,
)
def test_a_path_outside_the_grammar_is_refused(target: str, code: ErrorCode) -> None:
    """A path that looks like content but breaks the grammar raises the error code to answer with."""
    with pytest.raises(EndpointError) as refusal:
        parse_endpoint("GET", target)

    assert refusal.value.code == code
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_methods_of_uploads_settle_ambiguous_paths(method: str) -> None:
    """A path that reads as manifest and as upload session is the session for the methods only uploads have."""
    target = "/v2/a/blobs/uploads/manifests/b"

    assert parse_endpoint(method, target) == BlobUpload("a")
    assert parse_endpoint("GET", target) == Manifest("a/blobs/uploads", Tag("b"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_manifest_is_one_endpoint_for_all_its_methods(method: str) -> None:
    """Pull, check, push and delete of a manifest address the same endpoint."""
    assert parse_endpoint(method, "/v2/a/manifests/b") == Manifest("a", Tag("b"))


@given(st.builds(Blob, _NAMES, _DIGESTS) | st.builds(Manifest, _NAMES, _TAGS | _DIGESTS))
def test_a_built_path_parses_to_its_endpoint(endpoint: Blob | Manifest) -> None:
    """Building and parsing are inverse, even for names made of the API's own words."""
    assert parse_endpoint("GET", build_path(endpoint)) == endpoint


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PATCH", "OPTIONS", ""]),
    st.text()
    | st.lists(_COMPONENTS | st.text(max_size=3) | st.just("%2f"), max_size=7).map(lambda x: "/v2/" + "/".join(x)),
)
def test_no_target_raises_anything_else(method: str, target: str) -> None:
    """Whatever the target, there is an endpoint or an EndpointError, and content is always within the grammar."""
    try:
        endpoint = parse_endpoint(method, target)
    except EndpointError:
        return
    if isinstance(endpoint, Blob | Manifest):
        assert parse_endpoint("GET", build_path(endpoint)) == endpoint
