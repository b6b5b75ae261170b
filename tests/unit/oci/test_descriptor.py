"""Descriptors: three properties, none of them nonsense."""

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest


def test_descriptors_of_the_same_content_are_equal() -> None:
    """Two descriptors with the same properties compare and hash alike, so they can be keys."""
    first = Descriptor("application/json", Digest.of(b"x"), 1)
    second = Descriptor("application/json", Digest.of(b"x"), 1)

    assert {first} == {second}


def test_a_negative_size_is_refused() -> None:
    """A size below zero raises ValueError with the digest it was claimed for."""
    with pytest.raises(ValueError, match=r"descriptor of sha256:2d711642.* has a negative size: -1"):
        Descriptor("application/json", Digest.of(b"x"), -1)


def test_empty_content_has_a_descriptor() -> None:
    """Size zero is a size."""
    assert Descriptor("text/plain", Digest.of(b""), 0).size_bytes == 0
