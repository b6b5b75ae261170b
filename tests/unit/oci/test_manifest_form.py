"""What is taken for a manifest, and as which type it is served."""

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.manifest_form import manifest_media_type
from regproxy.oci.media_types import MANIFEST_MEDIA_TYPES

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@pytest.mark.parametrize(
    ("document", "content_type", "expected"),
    [
        ({"mediaType": IMAGE, "layers": []}, IMAGE, IMAGE),
        ({"layers": []}, IMAGE, IMAGE),
        ({"mediaType": IMAGE}, f"{IMAGE}; charset=utf-8", f"{IMAGE}; charset=utf-8"),
        (
            {"mediaType": IMAGE},
            "Application/VND.oci.image.Manifest.v1+json",
            "Application/VND.oci.image.Manifest.v1+json",
        ),
        ({"mediaType": INDEX, "manifests": []}, "text/plain", INDEX),
        ({"mediaType": INDEX, "manifests": []}, "text/html", INDEX),
        ({"mediaType": INDEX, "manifests": []}, "", INDEX),
        ({"mediaType": "application/x", "layers": []}, "application/x+json", "application/x+json"),
        ({"layers": []}, "", "application/json"),
        ({"layers": []}, "text/plain", "text/plain"),
        ({"mediaType": 5, "layers": []}, IMAGE, IMAGE),
        ({"fsLayers": [], "history": []}, SIGNED, SIGNED),
        ({"config": {"manifests": 1, "layers": 2}, "layers": [{"manifests": 1}]}, IMAGE, IMAGE),
    ],
)
def test_the_type_is_the_registrys_or_else_the_documents_own(
    document: dict[str, object], content_type: str, expected: str
) -> None:
    """To the letter where the registry says one of a manifest; what is below the outermost object does not count."""
    assert manifest_media_type(json.dumps(document).encode(), content_type) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", IMAGE, "not JSON"),
        (b"[]", IMAGE, "not an object"),
        (b"true", IMAGE, "not an object"),
        (b'{"a": 1', IMAGE, "not JSON"),
        (b'{"a": 1} x', IMAGE, "not JSON"),
        (b"\xff\xfe", IMAGE, "not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", IMAGE, "not JSON"),
        (b'{"a": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, IMAGE, "not JSON"),
        (b'{"a": [' + b"1," * 300_000 + b"1]}", IMAGE, "too many elements"),
        (b'{"layers": [], "manifests": []}', IMAGE, "both an image and an index"),
        (b'{"config": {}, "manifests": []}', INDEX, "both an image and an index"),
        (b'{"fsLayers": [], "manifests": null}', "", "both an image and an index"),
        (b'{"layers": [], "MANIFESTS": []}', IMAGE, "both an image and an index"),
        (b'{"layers": [], "m\\u0061nifests": []}', IMAGE, "both an image and an index"),
        (b'{"layers": [], "Layers": []}', IMAGE, "layers twice"),
        (f'{{"mediaType": "{IMAGE}", "mediaType": "{INDEX}"}}'.encode(), IMAGE, "mediatype twice"),
        (f'{{"mediaType": "{INDEX}"}}'.encode(), IMAGE, "says of itself"),
        (b'{"mediaType": "text/html"}', IMAGE, "says of itself"),
        (b'{"layers": []}', "text/html", "no type of a manifest"),
    ],
)
def test_what_is_no_manifest_or_more_than_one(body: bytes, content_type: str, reason: str) -> None:
    """The reason is in words."""
    with pytest.raises(ValueError, match=reason):
        manifest_media_type(body, content_type)


@given(
    st.binary(max_size=200) | st.text(alphabet='{}[]":,amnifests1', max_size=60).map(str.encode), st.text(max_size=20)
)
def test_nothing_else_than_value_error(body: bytes, content_type: str) -> None:
    """Whatever a registry sends."""
    for chosen in (content_type, *MANIFEST_MEDIA_TYPES):
        with contextlib.suppress(ValueError):
            assert manifest_media_type(body, chosen)


def test_a_large_document_costs_little_memory() -> None:
    """Four MiB of the smallest objects that are still looked at."""
    body = b'{"layers": [' + b'{"a":""},' * 120_000 + b"{}]" + b" " * (3 << 20) + b"}"
    tracemalloc.start()
    try:
        assert manifest_media_type(body, IMAGE) == IMAGE
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20
