"""The names of the objects, below the bucket's prefix."""

import hashlib

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Repository
from regproxy.store.records import TagKey, tag_key_prefix

PROBE = "probe"
"""Written and read to see whether the bucket answers."""

_HASH_CHARACTERS = 40


def content_path(digest: Digest) -> str:
    """Return where the bytes are."""
    return f"content/{_place(digest)}"


def about_path(digest: Digest) -> str:
    """Return where the bytes are described."""
    return f"about/{_place(digest)}"


def holders_prefix(digest: Digest) -> str:
    """Return below which all holders of a content are."""
    return f"holders/{digest.algorithm}/{digest.hex}"


def holder_path(digest: Digest, repository: Repository) -> str:
    """Return where it says that a repository has a content."""
    return f"{holders_prefix(digest)}/{_hashed(_repository_name(repository))}"


def repository_path(repository: Repository) -> str:
    """Return where it says whom a repository's registry lets read."""
    return f"repositories/{_hashed(_repository_name(repository))}"


def is_repository(path: str) -> bool:
    """Whether it says there whom a repository's registry lets read."""
    return path.startswith("repositories/")


def challenge_path(registry: Registry) -> str:
    """Return where it says what a registry asks for."""
    return f"challenges/{_hashed(str(registry))}"


def tag_prefix(registry: str, name: str, tag: str) -> str:
    """Return below which a tag's records are, for all kinds of clients."""
    return f"tags/{_hashed(tag_key_prefix(registry, name, tag))}"


def tag_path(key: TagKey) -> str:
    """Return where a tag's record for one kind of clients is."""
    return f"{tag_prefix(key.registry, key.name, key.tag)}/{_hashed(','.join(key.accepted))}"


def _place(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def _repository_name(repository: Repository) -> str:
    return f"{repository.registry}/{repository.name}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]
