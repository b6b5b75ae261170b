"""What clients pulled: one row for each name that a manifest was asked for by, with the time of the last pull.

Unlike a tag record or a source it outlives what was pulled, so that something that was evicted can be missed.
"""

from dataclasses import dataclass
from typing import Self

from regproxy.oci.digest import Digest

PULL_PREFIX = "pull:"


@dataclass(frozen=True, slots=True)
class Pulled:
    """A tag or a digest of a repository."""

    registry: str
    """`host` or `host:port`."""
    name: str
    reference: str
    at_s: float
    """Unix time of the last pull; up to 10 s late."""

    @property
    def digest(self) -> Digest | None:
        """The digest that was asked for; None for a tag."""
        return Digest.parse(self.reference) if ":" in self.reference else None

    @property
    def key(self) -> str:
        """The key of its row."""
        return pull_key(self.registry, self.name, self.reference)

    @property
    def text(self) -> str:
        """The name as people write it."""
        return f"{self.registry}/{self.name}{'@' if ':' in self.reference else ':'}{self.reference}"

    @classmethod
    def read(cls, key: str, text: str) -> Self:
        """Read a row; ValueError when it is anything else."""
        place, separator, reference = key.removeprefix(PULL_PREFIX).partition("|")
        registry, slash, name = place.partition("/")
        if not (separator and slash and key.startswith(PULL_PREFIX)):
            raise ValueError(f"not a pull: {key[:80]!r}")
        return cls(registry, name, reference, float(text))


def pull_key(registry: str, name: str, reference: str) -> str:
    """Return the index key of pulls by a tag or digest; neither registry nor name has a `|`."""
    return f"{PULL_PREFIX}{registry}/{name}|{reference}"
