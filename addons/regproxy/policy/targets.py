"""What an operator means by a word: one image, one repository, one registry, one digest.

    quay.io/team/app:1.4        a tag
    quay.io/team/app@sha256:…   a manifest, by the repository that it was pulled from
    quay.io/team/app            all that is known of a repository
    quay.io                     all that is known of a registry
    sha256:…                    content, whatever it is
    alpine, team/app:1.4        Docker Hub's, as Docker's command line has it

Names of Docker Hub are brought to the one that the cache knows it by.
"""

from dataclasses import dataclass, replace
from typing import Self

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry, Tag, parse_repository_name, parse_tag
from regproxy.oci.wording import shown
from regproxy.policy.mirror import HUB, HUB_NAMES

_FORMS = "registry/name:tag, registry/name@digest, registry/name, a registry, or a digest"


@dataclass(frozen=True, slots=True)
class Target:
    """A selection of what is stored; every part that is None selects all."""

    registry: str | None = None
    """`host` or `host:port`, as the index has it."""
    name: str | None = None
    reference: Tag | Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one of the forms above. Raises ValueError."""
        try:
            return cls(reference=Digest.parse(text))
        except ValueError:
            pass
        try:
            return cls._parse_name(text)
        except ValueError as error:
            raise ValueError(f"{shown(text)} is none of {_FORMS}: {error}") from None

    @classmethod
    def _parse_name(cls, text: str) -> Self:
        bare, at, digest_text = text.partition("@")
        reference: Tag | Digest | None = Digest.parse(digest_text) if at else None
        first, slash, rest = bare.partition("/")
        if _is_registry(first, alone=not slash and not at):
            registry, path = Registry.parse(first), rest
        else:
            registry, path = HUB, bare if slash else f"library/{bare}"
        if registry.host in HUB_NAMES:
            registry = replace(HUB, port=registry.port)
        if slash and not path:
            raise ValueError("there is no name behind the slash")
        if not path:
            return cls(str(registry))
        name, colon, tag = path.partition(":")
        if colon:
            # With a digest the tag is a comment, as it is to all clients.
            reference = reference or parse_tag(tag)
        return cls(str(registry), parse_repository_name(name), reference)

    @property
    def is_image(self) -> bool:
        """Whether it is one tag or one manifest of one repository."""
        return self.name is not None and self.reference is not None

    def selects(self, registry: str, name: str, reference: str) -> bool:
        """Whether a tag, or the manifest of a repository, is among what is meant."""
        return (
            (self.registry is None or self.registry == registry)
            and (self.name is None or self.name == name)
            and (self.reference is None or str(self.reference) == reference)
        )

    def __str__(self) -> str:
        if self.registry is None:
            return str(self.reference)
        if self.name is None:
            return self.registry
        sign = "" if self.reference is None else "@" if isinstance(self.reference, Digest) else ":"
        return f"{self.registry}/{self.name}{sign}{self.reference or ''}"


def _is_registry(first: str, *, alone: bool) -> bool:
    """Whether the part before the first slash is a registry, by the rule of Docker's command line.

    A lone word with a period is a registry here (`quay.io`), and one with a colon is if a port follows
    (`localhost:5000`): tags of Docker Hub's own images are not numbers above 1023 in practice, and `library/` says so.
    """
    if not alone:
        return "." in first or ":" in first or first == "localhost"
    host, colon, port = first.partition(":")
    return ("." in host or host == "localhost") and (not colon or port.isdecimal())
