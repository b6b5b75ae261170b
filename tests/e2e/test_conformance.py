"""The OCI distribution specification through both doors: each answer is the registry's own, or there is a reason."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.conformance import reading
from lab.conformance.reasons import REASONS, reason_for, unexplained
from lab.conformance.rounds import Rounds
from lab.conformance.table import Comparison
from lab.conformance.ways import Mirror, Tunnel
from lab.http_client import DirectRoute, ProxyRoute
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

DOCS = Path(__file__).parents[2] / "docs/conformance.md"
CACHED = {"ENABLE_MANIFEST_CACHE": "true"}


@pytest.fixture(scope="module")
def comparison(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """Ask everything: straight once, by each way twice."""

    def start(word: str, settings: dict[str, str]) -> Proxy:
        return lab.proxy(tmp_path_factory.mktemp(word), settings)

    assert [lab.noauth.name, lab.basic.name, lab.redirect.name]
    with (
        lab.origin(reading.REFERRERS_HOST) as origin,
        start("pusher", {"ALLOW_PUSH": "true"}) as pushing,
        start("cacher", CACHED) as caching,
        start("mirror", CACHED) as mirroring,
    ):
        reading.serve_referrers(origin)
        rounds = Rounds(lab)
        direct_way = Tunnel("direct", DirectRoute(lab.pki.ca_file, lab.addresses))
        direct = rounds.ask_all(direct_way, may_write=True, turns=1)
        pusher = Tunnel("pusher", ProxyRoute(pushing.address, pushing.ca_file))
        cacher = Tunnel("cacher", ProxyRoute(caching.address, caching.ca_file))
        ways = {
            pusher.word: rounds.ask_all(pusher, may_write=True),
            cacher.word: rounds.ask_all(cacher, may_write=False),
            "mirror": rounds.ask_all(Mirror("mirror", mirroring), may_write=False),
        }
        yield Comparison(direct, ways)


def test_each_answer_is_the_registrys_own_or_has_its_reason(comparison: Comparison) -> None:
    """Status, body and named fields, cold and warm, by every way."""
    assert unexplained(difference for _, difference in comparison.differences()) == []


def test_no_reason_is_left_over(comparison: Comparison) -> None:
    """A difference that is gone takes its note with it."""
    used = {reason.mark for _, difference in comparison.differences() if (reason := reason_for(difference))}
    assert [reason.mark for reason in REASONS if reason.mark not in used] == []


def test_the_page_shows_what_was_seen(comparison: Comparison) -> None:
    """`make golden` writes it."""
    text = comparison.text()
    if os.environ.get("RENEW_GOLDEN"):
        DOCS.write_text(text)
    assert DOCS.read_text() == text
