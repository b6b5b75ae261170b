"""regproxy.policy.closure: what belongs together, and what may go."""

from regproxy.oci.digest import Digest
from regproxy.oci.references import References
from regproxy.policy.closure import closure, missing, removable

INDEX, AMD, ARM, OTHER, BASE, TOP, CONFIG = (Digest.of(name.encode()) for name in "iaorbtc")
GRAPH = {
    INDEX: References(manifests=(AMD, ARM)),
    AMD: References(blobs=(CONFIG, BASE, TOP)),
    OTHER: References(blobs=(BASE,)),
}
ALL = frozenset({INDEX, AMD, CONFIG, BASE, TOP})


def test_an_index_leads_to_all_that_is_known_below_it() -> None:
    """A manifest that nobody pulled is named, and leads nowhere."""
    assert closure([INDEX], GRAPH) == ALL | {ARM}


def test_what_another_image_needs_stays() -> None:
    """The base layer goes with the last of its images."""
    assert removable([INDEX], GRAPH, [], frozenset()) == {INDEX, AMD, ARM, CONFIG, TOP}
    assert removable([INDEX, OTHER], GRAPH, [], frozenset()) == ALL | {ARM, OTHER}


def test_a_manifest_of_two_tags_stays_with_the_other() -> None:
    """Nothing of it goes."""
    assert removable([INDEX], GRAPH, [INDEX], frozenset()) == frozenset()


def test_a_platform_stays_with_its_index() -> None:
    """Purged alone, by digest, it is still named by the index."""
    assert removable([AMD], GRAPH, [], frozenset()) == frozenset()


def test_pinned_content_stays() -> None:
    """Whatever else goes."""
    assert TOP not in removable([INDEX], GRAPH, [], frozenset({TOP}))


def test_only_what_was_pulled_can_be_missing() -> None:
    """A platform that nobody pulled is no hole; a layer of one that somebody pulled is."""
    assert missing(INDEX, GRAPH, ALL) == frozenset()
    assert missing(INDEX, GRAPH, ALL - {TOP}) == {TOP}
    assert missing(INDEX, GRAPH, ALL - {INDEX}) == {INDEX}
