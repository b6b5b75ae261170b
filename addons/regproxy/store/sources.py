"""Where stored manifests came from: registry, repository, when, by whose login.

The content itself is kept by digest alone. A source says by which names it is known, also when no tag was ever asked
for, and lives as long as the content.
"""

import json
from dataclasses import dataclass
from typing import Self

from regproxy.oci.digest import Digest

SOURCE_PREFIX = "source:"


@dataclass(frozen=True, slots=True)
class Source:
    """One manifest of one repository."""

    registry: str
    """`host` or `host:port`."""
    name: str
    digest: Digest
    fetched_at_s: float
    """Unix time of the last download, seconds."""
    upstream: str
    """Scheme, host and port that sent it."""
    credential: str
    """Whose login opened it, as `policy.openers.opener_text` has it; empty for nobody's."""

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{SOURCE_PREFIX}{self.registry}/{self.name}@{self.digest}"

    def to_json(self) -> str:
        """Return the text form; with its key `read` makes a source of it again."""
        fields = {"fetched_at_s": self.fetched_at_s, "upstream": self.upstream, "credential": self.credential}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def read(cls, key: str, text: str) -> Self:
        """Read a row; ValueError when it is anything else."""
        try:
            place, _, digest = key.removeprefix(SOURCE_PREFIX).rpartition("@")
            registry, _, name = place.partition("/")
            fields = json.loads(text)
            return cls(
                registry,
                name,
                Digest.parse(digest),
                float(fields["fetched_at_s"]),
                str(fields["upstream"]),
                str(fields["credential"]),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a source: {text[:80]!r}") from error


def content_key_of_source(key: str) -> str:
    """Return the key of the content that a source is about."""
    return f"content:{key.rpartition('@')[2]}"
