"""Tiers: how long a tag lives, with the predecessor's own defaults."""

import re

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import (
    V1,
    Blob,
    BlobUpload,
    Catalog,
    Endpoint,
    Manifest,
    Other,
    Ping,
    Referrers,
    Tags,
)
from regproxy.oci.names import Tag
from regproxy.policy.tiers import Tier, choose_tier, request_class, tag_lifetime_s

TIERS = (
    Tier.from_expression("primary", "(stable|nightly|production|test)", 600),
    Tier.from_expression("secondary", r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+", 60 * 86400),
    Tier("default", None, 3600),
)
SHA256 = Digest.of(b"")
SHA512 = Digest.of(b"", "sha512")


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("stable", "primary"),
        ("testing123", "primary"),
        ("stable-alpine", "primary"),
        ("test-1.2.3", "primary"),
        ("Stable", "default"),
        ("my-stable", "default"),
        ("v1.2", "secondary"),
        ("2024", "secondary"),
        ("1a2b3", "secondary"),
        ("v1", "default"),
        ("latest", "default"),
        ("sha-abcdef", "default"),
    ],
)
def test_tags_fall_into_the_tiers_of_the_predecessor(tag: str, name: str) -> None:
    """With the default expressions, each tag is in the tier that was seen when the predecessor ran."""
    tier = choose_tier(Tag(tag), TIERS)

    assert tier is not None
    assert tier.name == name


@pytest.mark.parametrize(("tag", "lifetime_s"), [("stable", 600), ("1.2.3", 60 * 86400), ("latest", 3600)])
def test_a_tag_lives_as_long_as_its_tier(tag: str, lifetime_s: float) -> None:
    """The lifetime is that of the first tier that takes the tag."""
    assert tag_lifetime_s(Tag(tag), TIERS, caching_enabled=True) == lifetime_s


def test_without_caching_every_tag_is_asked_for() -> None:
    """With the manifest cache off no tag has a lifetime, whatever its tier."""
    assert tag_lifetime_s(Tag("1.2.3"), TIERS, caching_enabled=False) == 0


def test_a_tag_without_a_tier_is_asked_for() -> None:
    """When no tier takes a tag it has no lifetime, and it is called default."""
    primary = TIERS[:1]

    assert tag_lifetime_s(Tag("latest"), primary, caching_enabled=True) == 0
    assert request_class(Manifest("a", Tag("latest")), primary, caching_enabled=True) == "manifest-default"


def test_a_removed_tier_takes_nothing() -> None:
    """Without the primary tier, its tags fall to the next one that takes them."""
    tier = choose_tier(Tag("stable"), TIERS[1:])

    assert tier is TIERS[2]


def test_digits_of_other_scripts_are_no_digits() -> None:
    """An expression means ASCII digits, as in the predecessor."""
    pattern = Tier.from_expression("primary", r"\d", 1).pattern

    assert pattern is not None
    assert pattern.flags & re.ASCII


def test_flags_at_the_start_of_an_expression_hold() -> None:
    """An operator may ask for any case with the usual leading flag."""
    assert choose_tier(Tag("STABLE"), (Tier.from_expression("primary", "(?i)stable", 1),)) is not None


@pytest.mark.parametrize("expression", ["(", "*", "[a", "(?P<a>x)(?P<a>y)", "a{2,1}"])
def test_a_broken_expression_is_refused(expression: str) -> None:
    """What does not compile raises ValueError with the expression and the reason."""
    with pytest.raises(ValueError, match=r"^'.*' is not a regular expression: \w+"):
        Tier.from_expression("primary", expression, 1)


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        (Blob("a", SHA256), "blob-by-digest"),
        (Blob("a", SHA512), "blob-mutable"),
        (BlobUpload("a"), "blob-mutable"),
        (Manifest("a", SHA256), "manifest-by-digest"),
        (Manifest("a", SHA512), "manifest-by-digest"),
        (Manifest("a", Tag("stable")), "manifest-primary"),
        (Manifest("a", Tag("1.2.3")), "manifest-secondary"),
        (Manifest("a", Tag("latest")), "manifest-default"),
        (Manifest("stable", Tag("latest")), "manifest-default"),
        (Ping(), "unknown"),
        (Tags("a"), "unknown"),
        (Referrers("a", SHA256), "unknown"),
        (Catalog(), "unknown"),
        (Other("/token"), "unknown"),
        (V1(), ""),
    ],
    ids=str,
)
def test_requests_have_the_words_of_the_predecessor(endpoint: Endpoint, word: str) -> None:
    """Each endpoint is logged under the name that existing log filters look for."""
    assert request_class(endpoint, TIERS, caching_enabled=True) == word


@pytest.mark.parametrize("tag", ["stable", "1.2.3", "latest"])
def test_all_tags_are_one_class_without_caching(tag: str) -> None:
    """With the manifest cache off the word says so, whatever the tag."""
    assert request_class(Manifest("a", Tag(tag)), TIERS, caching_enabled=False) == "manifest-default-disabled"


def test_digests_keep_their_class_without_caching() -> None:
    """The manifest cache setting is about tags: digests are called the same either way."""
    assert request_class(Manifest("a", SHA256), TIERS, caching_enabled=False) == "manifest-by-digest"
