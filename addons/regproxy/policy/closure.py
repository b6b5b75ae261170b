"""Which content belongs together, and what of it may go: the reference graph of stored manifests.

A blob that several images share goes with the last of them. Nobody is asked here what is really on the disk.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from regproxy.oci.digest import Digest
from regproxy.oci.references import References

type Graph = Mapping[Digest, References]
"""What each stored manifest names."""


def closure(roots: Iterable[Digest], graph: Graph) -> frozenset[Digest]:
    """Return the roots and all that they lead to, as far as the manifests are known."""
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        named = graph.get(digest)
        if named is not None:
            waiting.extend(named.manifests)
            found.update(named.blobs)
    return frozenset(found)


def missing(root: Digest, graph: Graph, present: AbstractSet[Digest]) -> frozenset[Digest]:
    """Return what a manifest needs and is not present; manifests of an index that nobody pulled are not needed."""
    needed = {root}
    named = graph.get(root)
    if named is not None:
        needed.update(named.blobs)
        for manifest in named.manifests:
            if manifest in present:
                needed.update(missing(manifest, graph, present) | {manifest})
    return frozenset(needed - present)


def removable(
    roots: Iterable[Digest], graph: Graph, still_wanted: Iterable[Digest], pinned: AbstractSet[Digest]
) -> frozenset[Digest]:
    """Return what goes with the roots: all that they lead to and nothing else does.

    `still_wanted` are manifests that something else names (another tag). A manifest that does not belong to the roots
    keeps what it leads to, and so does one of the roots that is still wanted. Pinned content stays.
    """
    going = closure(roots, graph)
    stays = closure(still_wanted, graph) | closure(graph.keys() - going, graph)
    return going - stays - pinned
