"""Whether an image that clients pull would come from the cache while its registry is away.

An image is what clients asked for by tag, or by digest where no tag led there. It is ready when all is stored that they
need of it: of an index the platforms that were pulled, and of each its config and layers. Signatures and other
referrers count as images of their own: clients ask for them by their own tags and digests.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from regproxy.oci.digest import Digest
from regproxy.policy.closure import Graph


class State(StrEnum):
    """What a client would get."""

    READY = "ready"
    """The image, whole."""

    PREVIOUS = "previous"
    """What the tag meant before, whole: what it means now was never pulled."""

    INCOMPLETE = "incomplete"
    """Not all of it: the pull fails."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an image would do."""

    state: State
    digest: Digest | None
    """What would be served, or is in want; None when it is not even known what the tag means."""
    platforms: tuple[Digest, ...] = ()
    """Of an index: the manifests that clients need."""
    missing: frozenset[Digest] = frozenset()


def judge(
    candidates: Sequence[Digest], pulled: AbstractSet[Digest], graph: Graph, present: AbstractSet[Digest]
) -> Verdict:
    """Judge an image: `candidates` are what its name means, the newest first, and what it meant before.

    `pulled` are the manifests that clients asked for by digest in the same repository.
    """
    if not candidates:
        return Verdict(State.INCOMPLETE, None)
    verdicts = [_judge_one(candidate, pulled, graph, present) for candidate in candidates]
    newest = verdicts[0]
    if newest.state is State.READY:
        return newest
    for older in verdicts[1:]:
        if older.state is State.READY:
            return Verdict(State.PREVIOUS, older.digest, older.platforms)
    return newest


def _judge_one(digest: Digest, pulled: AbstractSet[Digest], graph: Graph, present: AbstractSet[Digest]) -> Verdict:
    platforms = needed_platforms(digest, pulled, graph, present)
    needed = {digest, *platforms}
    for manifest in (digest, *platforms):
        named = graph.get(manifest)
        if named is not None:
            needed.update(named.blobs)
    missing = frozenset(needed - present)
    return Verdict(State.INCOMPLETE if missing else State.READY, digest, platforms, missing)


def needed_platforms(
    digest: Digest, pulled: AbstractSet[Digest], graph: Graph, present: AbstractSet[Digest]
) -> tuple[Digest, ...]:
    """Return the manifests of an index that clients need: those that were pulled, else those that are there, else all.

    Of an image that is no index, none.
    """
    named = graph.get(digest)
    if named is None or not named.manifests:
        return ()
    for wanted in (pulled, present):
        chosen = tuple(manifest for manifest in named.manifests if manifest in wanted)
        if chosen:
            return chosen
    return named.manifests


@dataclass(frozen=True, slots=True)
class Summary:
    """How many images would do how, as of one moment."""

    at_s: float
    """Unix time."""
    counts: dict[State, int]
    wanting: tuple[tuple[str, str], ...]
    """Registry and name with tag or digest of those that would fail."""

    @property
    def images(self) -> int:
        """All of them."""
        return sum(self.counts.values())
