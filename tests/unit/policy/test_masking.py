"""What may be shown of a request: no secret, and all that is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.masking import MASK, masked_fields, masked_text

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", f"Basic {SECRET}", "Basic ***"),
        ("authorization", f"bearer {SECRET}", "bearer ***"),
        ("Authorization", f"Digest username={SECRET}, response={SECRET}", "Digest ***"),
        ("Authorization", SECRET, "***"),
        ("Authorization", f"{SECRET} {SECRET}", "***"),
        ("Proxy-Authorization", f"Basic {SECRET}", "Basic ***"),
        ("Cookie", f"a={SECRET}; b={SECRET}", "***"),
        ("Set-Cookie", f"a={SECRET}; Path=/", "***"),
        ("X-Registry-Auth", SECRET, "***"),
        ("X-Amz-Security-Token", SECRET, "***"),
        ("X-Api-Key", SECRET, "***"),
        ("Location", f"https://cdn.test/blob?X-Amz-Signature={SECRET}&X-Amz-Expires=9", None),
        ("Location", f"/v2/a/blobs/uploads/1?_state={SECRET}", "/v2/a/blobs/uploads/1?_state=***"),
        ("Location", f"https://u:{SECRET}@cdn.test/", "https://***@cdn.test/"),
        ("Location", f"https://app.test/#access_token={SECRET}", "https://app.test/#access_token=***"),
        ("Link", f'</v2/a/tags/list?last=b&n=2&sig={SECRET}>; rel="next"', None),
        ("X-Anything", f"see https://a.test/?x={SECRET}, please", None),
    ],
)
def test_a_secret_is_masked(name: str, value: str, shown: str | None) -> None:
    """The field stays, with what says of which kind the secret is."""
    ((kept, masked),) = masked_fields([(name, value)])

    assert SECRET not in masked
    assert MASK in masked
    assert kept == name
    if shown is not None:
        assert masked == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WWW-Authenticate", 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:c"'),
        ("Docker-Content-Digest", "sha256:" + "a" * 64),
        ("Accept", "application/vnd.oci.image.manifest.v1+json, */*;q=0.5"),
        ("User-Agent", "docker/26.1 go/go1.21 (linux; +https://a.test/)"),
        ("Link", '</v2/_catalog?last=b&n=2>; rel="next"'),
        ("Content-Range", "bytes 0-1/2"),
        ("ratelimit-remaining", "99;w=21600"),
        ("Etag", '"abc"'),
    ],
)
def test_what_is_no_secret_stays_as_it_is(name: str, value: str) -> None:
    """Debugging lives from these fields."""
    assert masked_fields([(name, value)]) == ((name, value),)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v2/library/alpine/manifests/latest", "/v2/library/alpine/manifests/latest"),
        ("/token?service=registry.docker.io&scope=repository:a:pull", None),
        ("/token?scope=a&account=alice&password=p", "/token?scope=a&account=***&password=***"),
        ("/v2/a/blobs/uploads/?mount=sha256:1&from=b", None),
        ("/x?", "/x?"),
        (f"/x?{SECRET}", "/x?***"),
        (f"/x?{SECRET}=", "/x?***"),
        (f"/x?a=1;b={SECRET}?c={SECRET}#{SECRET}", "/x?a=***;b=***?c=***#***"),
        (f"/x?%74oken={SECRET}", "/x?***"),
        (f"/x?a={SECRET}={SECRET}", "/x?a=***"),
        (f"/x?{'n' * 41}={SECRET}", "/x?***"),
    ],
)
def test_parameters_that_are_not_known_are_masked(target: str, shown: str | None) -> None:
    """Each storage has other names for its signatures, so what is shown is listed, not what is hidden."""
    assert masked_text(target) == (shown or target)


@given(st.text(), st.text())
def test_any_text_can_be_masked_and_a_second_time_changes_nothing(name: str, value: str) -> None:
    """What a client sends is anything; masking is final."""
    once = masked_fields([(name, value)])

    assert masked_fields(once) == once
