"""Addresses of buckets."""

import pytest

from regproxy.policy.bucket_address import BucketAddress


def test_a_bucket_alone_is_amazon_s3() -> None:
    """Nothing but the bucket is needed."""
    assert BucketAddress.parse("s3://team-cache") == BucketAddress("team-cache")


def test_all_parts_are_read() -> None:
    """Prefix, endpoint, region and the form of the host name; slashes at the ends mean nothing."""
    address = BucketAddress.parse("s3://b.1-x/one/two/?endpoint=http://127.0.0.1:8333/&region=eu-1&virtual_hosted=true")

    assert address == BucketAddress("b.1-x", "one/two", "http://127.0.0.1:8333", "eu-1", virtual_hosted=True)
    assert str(address) == "s3://b.1-x/one/two"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://bucket", "not an s3:// URL"),
        ("s3://", "the bucket's name"),
        ("s3://UPPER", "the bucket's name"),
        ("s3://bucket:9000/x", "the bucket's name"),
        ("s3://key:hidden-word@bucket", "credentials do not belong here"),
        ("s3://bucket?endpoint=http://key:hidden-word@host", "credentials do not belong here"),
        ("s3://bucket?secret_access_key=hidden-word", "credentials do not belong here"),
        ("s3://bucket/a//b", "the prefix"),
        ("s3://bucket/a b", "the prefix"),
        ("s3://bucket?endpoint=host:9000", "the endpoint"),
        ("s3://bucket?endpoint=http://host:x", "the endpoint"),
        ("s3://bucket?endpoint=http://host?x=1", "the endpoint"),
        ("s3://bucket?virtual_hosted=yes", "neither true nor false"),
        ("s3://bucket?endpoint", "not a URL"),
        ("s3://bucket#part", "may follow the question mark"),
    ],
)
def test_what_is_wrong_is_said_without_the_text(text: str, reason: str) -> None:
    """Each mistake has its reason, and no reason repeats what may be a secret."""
    with pytest.raises(ValueError, match=reason) as caught:
        BucketAddress.parse(text)

    assert "hidden-word" not in str(caught.value)
