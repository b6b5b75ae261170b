"""Media types: what a client accepts, as a set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.media_types import (
    MANIFEST_MEDIA_TYPES,
    accepted_manifest_types,
    is_accepted,
    is_manifest_media_type,
)

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        pytest.param([], ("*/*",), id="absent"),
        pytest.param([""], ("*/*",), id="empty"),
        pytest.param([" , ,"], ("*/*",), id="only commas"),
        pytest.param(["nonsense"], ("*/*",), id="malformed"),
        pytest.param(["nonsense, a/b"], ("a/b",), id="malformed beside good"),
        pytest.param([OCI_MANIFEST, OCI_INDEX], (OCI_INDEX, OCI_MANIFEST), id="two fields"),
        pytest.param([f"{OCI_MANIFEST},{OCI_INDEX}"], (OCI_INDEX, OCI_MANIFEST), id="one field"),
        pytest.param([f"{OCI_INDEX};q=0.5, {OCI_INDEX}"], (OCI_INDEX,), id="weights and repetition"),
        pytest.param(["Application/JSON ; charset=utf-8"], ("application/json",), id="case and parameters"),
        pytest.param(["a/b;q=0, c/d"], ("c/d",), id="weight 0"),
        pytest.param(["a/b;q=0.000, c/d;q=0.001"], ("c/d",), id="weight 0.000"),
        pytest.param(["a/b; level=1; Q=0"], (), id="everything refused"),
        pytest.param(["a/b;q=0, a/b"], ("a/b",), id="refused and accepted"),
        pytest.param(["*/*, application/*"], ("*/*", "application/*"), id="wildcards"),
        pytest.param(['a/b;x="1,2;q=0", c/d'], ("a/b", "c/d"), id="comma in quotes"),
        pytest.param(['a/b;x="never closed'], ("a/b",), id="unclosed quote"),
    ],
)
def test_accept_fields_become_a_set(headers: list[str], accepted: tuple[str, ...]) -> None:
    """Order, weights, case, parameters and the number of fields do not matter; refused types are absent."""
    assert accepted_manifest_types(headers) == accepted


@given(st.permutations(MANIFEST_MEDIA_TYPES), st.integers(0, len(MANIFEST_MEDIA_TYPES)))
def test_order_and_fields_do_not_change_the_set(media_types: list[str], cut: int) -> None:
    """The same types in any order and any number of fields give the same cache key."""
    headers = [", ".join(media_types[:cut]), ",".join(media_types[cut:])]

    assert accepted_manifest_types(headers) == tuple(sorted(MANIFEST_MEDIA_TYPES))


@given(st.lists(st.text(alphabet='ab/*;q=01., "\\\n') | st.text()))
def test_no_accept_field_raises(headers: list[str]) -> None:
    """Whatever the fields, the set is sorted and has no type twice."""
    accepted = accepted_manifest_types(headers)

    assert list(accepted) == sorted(set(accepted))


@pytest.mark.parametrize(
    ("media_type", "accepted", "verdict"),
    [
        (OCI_INDEX, (OCI_INDEX, OCI_MANIFEST), True),
        (OCI_INDEX.upper() + "; charset=utf-8", (OCI_INDEX,), True),
        (DOCKER_MANIFEST, (OCI_INDEX, OCI_MANIFEST), False),
        (DOCKER_MANIFEST, ("*/*",), True),
        (DOCKER_MANIFEST, ("application/*",), True),
        (DOCKER_MANIFEST, ("text/*",), False),
        (DOCKER_MANIFEST, (), False),
    ],
)
def test_a_type_is_accepted_by_name_or_wildcard(media_type: str, accepted: tuple[str, ...], *, verdict: bool) -> None:
    """A stored type suits a client that named it or a wildcard over it."""
    assert is_accepted(media_type, accepted) is verdict


@pytest.mark.parametrize("media_type", MANIFEST_MEDIA_TYPES)
def test_manifest_types_are_recognised(media_type: str) -> None:
    """Each known manifest type is one in any case and with parameters."""
    assert is_manifest_media_type(media_type.upper() + " ; charset=utf-8")


@pytest.mark.parametrize("media_type", ["", "application/json", "application/octet-stream", "*/*", "text/html"])
def test_other_types_are_no_manifests(media_type: str) -> None:
    """Error pages and blobs are not taken for manifests."""
    assert not is_manifest_media_type(media_type)
