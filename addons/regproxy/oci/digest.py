"""Content digests: `algorithm:hex`, the only thing that names content.

Grammar and algorithms: OCI image-spec 1.1, descriptor.md, "Digests". Only the two registered algorithms are accepted,
each with its exact length in lower case, so that a digest may be used to build a file name without further checks.

This module does not decide what happens to content whose digest is wrong.
"""

import hashlib
import re
from collections.abc import Buffer
from dataclasses import dataclass
from typing import Protocol, Self

from regproxy.oci.wording import shown

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
"""Number of hexadecimal characters of each algorithm that may name content."""

_LOWER_HEX = re.compile(r"[0-9a-f]+")


class RunningHash(Protocol):
    """The part of a hashlib object that is used while content arrives."""

    def update(self, content: Buffer, /) -> None:
        """Add the next bytes of the content."""

    def hexdigest(self) -> str:
        """Return the hash of everything added so far, in lower-case hexadecimal."""

    def copy(self) -> Self:
        """Return an independent copy, for a checkpoint that goes on."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A verified-form digest; an instance always satisfies the grammar."""

    algorithm: str
    """`sha256` or `sha512`."""

    hex: str
    """The encoded hash: lower-case hexadecimal of the algorithm's exact length."""

    def __post_init__(self) -> None:
        length = HEX_LENGTHS.get(self.algorithm)
        if length is None:
            known = " and ".join(HEX_LENGTHS)
            raise ValueError(f"digest algorithm {shown(self.algorithm)} is not supported, only {known} are")
        if len(self.hex) != length or _LOWER_HEX.fullmatch(self.hex) is None:
            raise ValueError(
                f"digest {shown(f'{self.algorithm}:{self.hex}')} needs {length} lower-case hexadecimal characters"
            )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex`; ValueError when the form, the algorithm or the length is wrong."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise ValueError(f"digest {shown(text)} has no colon between algorithm and hash")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: Buffer, algorithm: str = "sha256") -> Self:
        """Hash content that is already in memory (manifests, not blobs)."""
        if algorithm not in HEX_LENGTHS:
            raise ValueError(f"digest algorithm {shown(algorithm)} is not supported")
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def new_hash(self) -> RunningHash:
        """Start an empty hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)
