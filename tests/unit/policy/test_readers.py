"""Who may read, in words: as many different answers as there are rules."""

import pytest

from regproxy.policy.access import AccessRules, Given, Known, Openness
from regproxy.policy.readers import readers_text

RULES = AccessRules(lifetime_s=300, grace_s=3600)
NOW_S = 1_000_000.0
LATELY_S, LONG_AGO_S = NOW_S - 60, NOW_S - 86400


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (Known(), "it was not fetched for this repository"),
        (Known(Openness(public_at_s=LATELY_S), given=Given.TO_NOBODY), "everybody: the registry gave it without"),
        (Known(Openness(shared_at_s=LATELY_S), given=Given.TO_OPERATOR), "whoever may use the proxy: the registry"),
        (Known(Openness(public_at_s=LONG_AGO_S), given=Given.TO_NOBODY), "asked again; while it is away, everybody"),
        (Known(Openness(shared_at_s=LONG_AGO_S), given=Given.TO_OPERATOR), "away, whoever may use the proxy"),
        (Known(given=Given.TO_CLIENT), "logins that the registry lets read it; 3 of them also while it is away"),
    ],
)
def test_each_rule_has_its_words(known: Known, words: str) -> None:
    """What is said is what `AccessRules` decides."""
    assert words in readers_text(known, 3, RULES, NOW_S)
