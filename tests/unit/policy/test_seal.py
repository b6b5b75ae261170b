"""Seals of shared records."""

import pytest

from regproxy.policy.seal import Seal

SEAL = Seal.of_secret("what all replicas know")


def test_a_record_is_read_where_it_was_written() -> None:
    """Name and key are the same: the text comes back, whatever is in it."""
    assert SEAL.open("tags/1", SEAL.close("tags/1", '{"a": "ü\n"}')) == '{"a": "ü\n"}'


def test_the_same_secret_makes_the_same_key() -> None:
    """Replicas need nothing but the secret in common."""
    assert Seal.of_secret("what all replicas know") == SEAL
    assert b"what all replicas know" not in SEAL.key
    assert "key" not in repr(SEAL)


@pytest.mark.parametrize(
    ("name", "sealed"),
    [
        ("tags/2", SEAL.close("tags/1", "text")),
        ("tags/1", SEAL.close("tags/1", "text") + b" "),
        ("tags/1", Seal.of_secret("another").close("tags/1", "text")),
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
