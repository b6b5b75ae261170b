"""The files of a docker-registry: where a blob lies, and how to change it behind the registry's back.

The layout is the filesystem driver's of distribution 2.8. A blob written here needs no push, which is the quick way
to a large one.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path


class Storage:
    """One storage folder; several registries may serve the same."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._registry = directory / "docker/registry/v2"
        self._registry.mkdir(parents=True)

    def blob_file(self, digest: str) -> Path:
        """Return the file of a blob or manifest."""
        algorithm, _, hexadecimal = digest.partition(":")
        return self._registry / "blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data"

    def add_blob(self, repository: str, chunks: Iterable[bytes]) -> str:
        """Write a blob that `repository` may serve and return its digest."""
        incoming = self._registry / "incoming"
        checksum = hashlib.sha256()
        with incoming.open("wb") as target:
            for chunk in chunks:
                checksum.update(chunk)
                target.write(chunk)
        digest = f"sha256:{checksum.hexdigest()}"
        self.blob_file(digest).parent.mkdir(parents=True, exist_ok=True)
        incoming.rename(self.blob_file(digest))
        link = self._registry / "repositories" / repository / "_layers/sha256" / checksum.hexdigest() / "link"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(digest)
        return digest

    @contextlib.contextmanager
    def corrupted(self, digest: str) -> Iterator[None]:
        """Let a blob of the same size but with its last byte changed be served for a while."""
        blob = self.blob_file(digest)
        with self._replaced(blob):
            right = blob.with_name("right").read_bytes()
            blob.write_bytes(right[:-1] + bytes([right[-1] ^ 0xFF]))
            yield

    @contextlib.contextmanager
    def missing(self, digest: str) -> Iterator[None]:
        """Let a blob be gone for a while."""
        with self._replaced(self.blob_file(digest)):
            yield

    @staticmethod
    @contextlib.contextmanager
    def _replaced(blob: Path) -> Iterator[None]:
        right = blob.with_name("right")
        blob.rename(right)
        try:
            yield
        finally:
            right.replace(blob)
