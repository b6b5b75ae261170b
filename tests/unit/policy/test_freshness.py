"""Freshness: when to ask upstream, and when to serve in spite of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.freshness import ConnectionFailed, Status, TimedOut, UpstreamFailure, is_fresh, stale_allowed

_SECONDS = st.integers(0, 10**10)


@pytest.mark.parametrize(
    ("checked_at_s", "lifetime_s", "now_s", "fresh"),
    [
        pytest.param(1000, 60, 1000, True, id="just checked"),
        pytest.param(1000, 60, 1059.9, True, id="before the end"),
        pytest.param(1000, 60, 1060, False, id="at the end"),
        pytest.param(1000, 60, 9999, False, id="long after"),
        pytest.param(1000, 0, 1000, False, id="no lifetime"),
        pytest.param(1000, 60, 999, False, id="clock set back"),
    ],
)
def test_a_tag_is_fresh_within_its_lifetime(
    checked_at_s: float, lifetime_s: float, now_s: float, *, fresh: bool
) -> None:
    """A tag is fresh from its check until its lifetime is over, and never when its age is unknown."""
    assert is_fresh(checked_at_s, lifetime_s, now_s) is fresh


@given(_SECONDS, _SECONDS, _SECONDS, _SECONDS)
def test_a_stale_tag_does_not_become_fresh_by_waiting(checked: int, lifetime: int, age: int, more: int) -> None:
    """Once a tag is stale it stays so until the next check."""
    if not is_fresh(checked, lifetime, checked + age):
        assert not is_fresh(checked, lifetime, checked + age + more)


@pytest.mark.parametrize(
    "failure",
    [ConnectionFailed(), TimedOut(), *(Status(code) for code in (408, 429, 500, 501, 502, 503, 504, 520, 599))],
    ids=repr,
)
def test_a_failing_upstream_is_stood_in_for(failure: UpstreamFailure) -> None:
    """Connection failures, timeouts, 408, 429 and every 5xx let the last good answer be served."""
    assert stale_allowed(failure)


@pytest.mark.parametrize("code", [200, 301, 304, 400, 401, 403, 404, 405, 410, 416, 451, 600])
def test_an_answer_is_not_an_outage(code: int) -> None:
    """Above all 401, 403 and 404 are decisions of upstream, which a cache must not overrule."""
    assert not stale_allowed(Status(code))
