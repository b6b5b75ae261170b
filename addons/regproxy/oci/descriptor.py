"""Descriptors: what a manifest or a blob is, without the content itself.

OCI image-spec 1.1, descriptor.md: media type, digest, size. Optional properties (annotations, platform, urls) are not
kept, because nothing the proxy decides depends on them.
"""

from dataclasses import dataclass

from regproxy.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The three required properties of a content descriptor."""

    media_type: str
    """The `Content-Type` the content was served with, verbatim."""

    digest: Digest
    """The name of the content."""

    size_bytes: int
    """Length of the content."""

    def __post_init__(self) -> None:
        if self.size_bytes < 0:
            raise ValueError(f"descriptor of {self.digest} has a negative size: {self.size_bytes}")
