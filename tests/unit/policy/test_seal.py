"""Seals of shared records."""

import hashlib

import pytest

from regproxy.policy.seal import Seal

SEAL = Seal.of_secret("what all replicas know", "s3://bucket/prod")


def test_a_record_is_read_where_it_was_written() -> None:
    """Name and key are the same: the text comes back, whatever is in it."""
    assert SEAL.open("tags/1", SEAL.close("tags/1", '{"a": "ü\n"}')) == '{"a": "ü\n"}'


def test_the_same_secret_makes_the_same_key() -> None:
    """Replicas need nothing but the secret in common."""
    assert Seal.of_secret("what all replicas know", "s3://bucket/prod") == SEAL
    assert b"what all replicas know" not in SEAL.key
    assert "key" not in repr(SEAL)


@pytest.mark.parametrize("place", ["s3://bucket", "s3://bucket/prod2", "s3://bucket2/prod", "s3://bucket/pro/d"])
def test_what_was_copied_from_another_place_is_refused(place: str) -> None:
    """Another bucket or prefix, with the same secret: who may read there may not be who may read here."""
    elsewhere = Seal.of_secret("what all replicas know", place)
    with pytest.raises(ValueError, match="tags/1"):
        SEAL.open("tags/1", elsewhere.close("tags/1", "text"))


def test_a_seal_of_the_first_form_is_as_good_as_none() -> None:
    """It had no place in it."""
    salt = b"registry-proxy shared records 1"
    key = hashlib.scrypt(b"what all replicas know", salt=salt, n=2**14, r=8, p=1, maxmem=64 * 1024 * 1024, dklen=32)
    with pytest.raises(ValueError, match="tags/1"):
        SEAL.open("tags/1", Seal(key).close("tags/1", "text"))


@pytest.mark.parametrize(
    ("name", "sealed"),
    [
        ("tags/2", SEAL.close("tags/1", "text")),
        ("tags/1", SEAL.close("tags/1", "text") + b" "),
        ("tags/1", Seal.of_secret("another", "s3://bucket/prod").close("tags/1", "text")),
        ("tags/1", b"\n".join([b"0" * 64, b"text"])),
        ("tags/1", b"text"),
        ("tags/1", b""),
        ("tags/1", b"\xff\xfe\ntext"),
        ("tags/1", SEAL.close("tags/1", "text")[:64] + b"\n\xff"),
        ("s/1", SEAL.close("s/1\0a", "b")[:64] + b"\na\0b"),
    ],
)
def test_anything_else_is_refused(name: str, sealed: bytes) -> None:
    """Another name, another key, a changed text, no seal."""
    with pytest.raises(ValueError, match=name):
        SEAL.open(name, sealed)
