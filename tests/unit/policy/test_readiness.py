"""Whether an image would come from the cache alone."""

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.references import References
from regproxy.policy.readiness import State, Summary, Verdict, judge


def digest(name: str) -> Digest:
    return Digest.of(name.encode())


INDEX, AMD64, ARM64, OLD, CONFIG, LAYER, OTHER_LAYER = map(
    digest, ("index", "amd64", "arm64", "old", "config", "layer", "other layer")
)
GRAPH = {
    INDEX: References(manifests=(AMD64, ARM64)),
    AMD64: References(blobs=(CONFIG, LAYER)),
    ARM64: References(blobs=(CONFIG, OTHER_LAYER)),
    OLD: References(blobs=(CONFIG,)),
}
WHOLE = {INDEX, AMD64, CONFIG, LAYER}


@pytest.mark.parametrize(
    ("candidates", "pulled", "present", "verdict"),
    [
        ([INDEX], {AMD64}, WHOLE, Verdict(State.READY, INDEX, (AMD64,))),
        ([INDEX], set(), WHOLE, Verdict(State.READY, INDEX, (AMD64,))),
        (
            [INDEX],
            {AMD64, ARM64},
            WHOLE,
            Verdict(State.INCOMPLETE, INDEX, (AMD64, ARM64), frozenset({ARM64})),
        ),
        ([INDEX], {AMD64}, WHOLE - {LAYER}, Verdict(State.INCOMPLETE, INDEX, (AMD64,), frozenset({LAYER}))),
        ([INDEX], {AMD64}, WHOLE - {AMD64}, Verdict(State.INCOMPLETE, INDEX, (AMD64,), frozenset({AMD64}))),
        ([AMD64], set(), WHOLE, Verdict(State.READY, AMD64)),
        ([digest("new"), OLD], set(), {OLD, CONFIG}, Verdict(State.PREVIOUS, OLD)),
        ([digest("new"), OLD], set(), {OLD}, Verdict(State.INCOMPLETE, digest("new"), (), frozenset({digest("new")}))),
        ([], set(), WHOLE, Verdict(State.INCOMPLETE, None)),
    ],
    ids=[
        "the platform that is used",
        "the platform that is there",
        "a platform that is used is not there",
        "a layer is not there",
        "the platform's manifest is not there",
        "no index",
        "what the tag meant before",
        "neither is whole",
        "nothing is known",
    ],
)
def test_what_a_client_would_get(
    candidates: list[Digest], pulled: set[Digest], present: set[Digest], verdict: Verdict
) -> None:
    """What clients used has to be there, whole, and nothing else has to."""
    graph = {each: GRAPH[each] for each in present if each in GRAPH}
    assert judge(candidates, pulled, graph, present) == verdict


def test_an_index_of_which_nothing_is_there_is_not_ready() -> None:
    """Though it is itself whole."""
    assert judge([INDEX], set(), {INDEX: GRAPH[INDEX]}, {INDEX}).state is State.INCOMPLETE


def test_a_summary_counts_all() -> None:
    """Those that would fail among them."""
    assert Summary(0.0, {State.READY: 2, State.INCOMPLETE: 1}, (("quay.io", "a:1"),)).images == 3
