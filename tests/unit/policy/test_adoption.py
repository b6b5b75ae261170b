"""What is taken over of a predecessor's cache."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.media_types import is_manifest_media_type
from regproxy.policy.adoption import OldCache, budget_bytes, last_use_s, manifest_media_type

DAY_S = 86400.0
NOW_S = 1_700_000_000.0
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize(
    ("mode", "expected"), [(OldCache.COPY, 500), (OldCache.MOVE, None), (OldCache.IGNORE, None)], ids=list(OldCache)
)
def test_copies_take_half_of_the_free_space_at_most(mode: OldCache, expected: int | None) -> None:
    """What is moved takes no more room in the end, so only copies have a budget."""
    assert budget_bytes(mode, 1000) == expected


@pytest.mark.parametrize(
    ("access_ago_s", "modification_ago_s", "expected_ago_s"),
    [
        pytest.param(DAY_S, 5 * DAY_S, DAY_S, id="read after it was written"),
        pytest.param(5 * DAY_S, DAY_S, DAY_S, id="access times are not kept"),
        pytest.param(50 * DAY_S, 55 * DAY_S, 30 * DAY_S, id="in use, or the predecessor would have removed it"),
        pytest.param(-DAY_S, DAY_S, 0, id="a clock that was wrong"),
    ],
)
def test_the_last_use_is_what_the_files_times_say_within_reason(
    access_ago_s: float, modification_ago_s: float, expected_ago_s: float
) -> None:
    """Never in the future, and never so long ago that the content would be removed before anybody can ask for it."""
    used_at_s = last_use_s(NOW_S - access_ago_s, NOW_S - modification_ago_s, NOW_S, 60 * DAY_S)

    assert used_at_s == NOW_S - expected_ago_s


@pytest.mark.parametrize(
    ("content_type", "fields", "expected"),
    [
        pytest.param(OCI_MANIFEST, {}, OCI_MANIFEST, id="as stored"),
        pytest.param(f"{OCI_INDEX}; charset=utf-8", {}, OCI_INDEX, id="without parameters"),
        pytest.param("binary/octet-stream", {"mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST, id="it says so itself"),
        pytest.param("", {"manifests": []}, OCI_INDEX, id="an index without mediaType"),
        pytest.param("", {"config": {}, "layers": []}, OCI_MANIFEST, id="a manifest without mediaType"),
        pytest.param("", {"config": {}}, None, id="some other object"),
        pytest.param("", {"mediaType": "text/html", "manifests": []}, None, id="it says that it is something else"),
        pytest.param("", {"mediaType": 7, "manifests": []}, OCI_INDEX, id="mediaType that is no text"),
        pytest.param("text/html", [], None, id="no object"),
    ],
)
def test_the_media_type_of_a_manifest_is_found(content_type: str, fields: object, expected: str | None) -> None:
    """By the stored field; if a redirect spoilt that, by the manifest itself."""
    assert manifest_media_type(content_type, json.dumps(fields).encode()) == expected


@given(st.text(), st.binary() | st.recursive(st.none(), st.lists, max_leaves=5).map(lambda x: json.dumps(x).encode()))
def test_a_media_type_is_a_manifests_or_none(content_type: str, body: bytes) -> None:
    """Whatever lies in the cache, nothing else is ever stored as a manifest, and nothing is raised."""
    media_type = manifest_media_type(content_type, body)

    assert media_type is None or is_manifest_media_type(media_type)
