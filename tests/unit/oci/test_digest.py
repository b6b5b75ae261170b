"""Digests: the grammar is exact, because a digest becomes a file name."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.digest import HEX_LENGTHS, Digest

EMPTY_SHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@given(content=st.binary(max_size=64))
def test_a_digest_survives_its_text_form(algorithm: str, content: bytes) -> None:
    """Parsing the text of a digest gives the same digest, for both registered algorithms."""
    digest = Digest.of(content, algorithm)

    assert Digest.parse(str(digest)) == digest


def test_content_is_named_by_its_hash() -> None:
    """The digest of no content is the well-known SHA-256 of the empty string."""
    assert str(Digest.of(b"")) == EMPTY_SHA256


@pytest.mark.parametrize("algorithm", HEX_LENGTHS)
def test_a_running_hash_agrees_with_the_whole(algorithm: str) -> None:
    """Hashing content in pieces, even from a copied state, gives the digest of all of it."""
    digest = Digest.of(b"first second", algorithm)
    running = digest.new_hash()
    running.update(b"first ")
    checkpoint = running.copy()
    running.update(b"other")
    checkpoint.update(b"second")

    assert checkpoint.hexdigest() == digest.hex
    assert running.hexdigest() == hashlib.new(algorithm, b"first other").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("sha256", id="no colon"),
        pytest.param("sha256:", id="no hash"),
        pytest.param("sha256:" + "a" * 63, id="too short"),
        pytest.param("sha256:" + "a" * 65, id="too long"),
        pytest.param("sha256:" + "A" * 64, id="upper case"),
        pytest.param("SHA256:" + "a" * 64, id="upper-case algorithm"),
        pytest.param("sha256:" + "g" * 64, id="not hexadecimal"),
        pytest.param("sha256:" + "\u0660" * 64, id="digits of another script"),
        pytest.param("sha256:" + "a" * 63 + "\n", id="newline at the end"),
        pytest.param(" sha256:" + "a" * 64, id="blank before"),
        pytest.param("sha512:" + "a" * 64, id="length of the other algorithm"),
        pytest.param("md5:" + "a" * 32, id="weak algorithm"),
        pytest.param("sha256:../../../../etc/passwd" + "a" * 42, id="path traversal"),
        pytest.param("sha256:sha256:" + "a" * 57, id="two colons"),
    ],
)
def test_text_outside_the_grammar_is_refused(text: str) -> None:
    """Anything but algorithm, colon and the exact lower-case hash raises ValueError."""
    with pytest.raises(ValueError, match="digest"):
        Digest.parse(text)


def test_a_digest_cannot_be_constructed_around_its_grammar() -> None:
    """The constructor checks as the parser does, so every instance is safe in a path."""
    with pytest.raises(ValueError, match="64 lower-case"):
        Digest("sha256", "../" * 21 + "a")


def test_unknown_algorithms_hash_nothing() -> None:
    """Hashing with an algorithm that may not name content is refused."""
    with pytest.raises(ValueError, match="'md5' is not supported"):
        Digest.of(b"", "md5")


@given(st.text())
def test_parsing_raises_nothing_but_value_errors(text: str) -> None:
    """Whatever the text, the parser returns a digest or raises ValueError."""
    try:
        digest = Digest.parse(text)
    except ValueError:
        return
    assert str(digest) == text
