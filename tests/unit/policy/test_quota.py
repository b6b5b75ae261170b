"""Rate limit fields as registries send them, and what is made of them."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.quota import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    LONGEST_RETRY_AFTER_S,
    LONGEST_WINDOW_S,
    UNKNOWN_WINDOW_S,
    Quota,
    backoff_s,
    parse_quota,
    retry_after_s,
    spares,
)

NOW_S = 1_763_700_000.0
HUB = {
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": "76;w=21600",
    "docker-ratelimit-source": "192.0.2.1",
}


def told(fields: dict[str, str]) -> tuple[int, int | None, float | None, float]:
    """Return remaining, limit, window and in how many seconds it has passed."""
    quota = parse_quota(fields, NOW_S)
    assert quota is not None
    return quota.remaining, quota.limit, quota.window_s, quota.passes_at_s - NOW_S


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            (HUB, (76, 100, 21600, 21600)),
            ({"ratelimit-remaining": "0;w=21600", "ratelimit-limit": "100;w=21600"}, (0, 100, 21600, 21600)),
            ({"ratelimit-remaining": " 5 ", "ratelimit-limit": "10, 10;w=1, 50;w=60"}, (5, 10, 1, 1)),
            # GitLab
            (
                {"ratelimit-limit": "60", "ratelimit-remaining": "59", "ratelimit-reset": f"{NOW_S + 25:.0f}"},
                (59, 60, None, 25),
            ),
            ({"ratelimit-limit": "60", "ratelimit-remaining": "59", "ratelimit-reset": "30"}, (59, 60, None, 30)),
            # GitHub, Docker Hub's own API
            (
                {"x-ratelimit-limit": "180", "x-ratelimit-remaining": "7", "x-ratelimit-reset": f"{NOW_S + 9:.0f}"},
                (7, 180, None, 9),
            ),
            ({"x-ratelimit-limit": "180", "x-ratelimit-remaining": "7"}, (7, 180, None, UNKNOWN_WINDOW_S)),
            ({"ratelimit": "limit=100, remaining=50, reset=5"}, (50, 100, None, 5)),
            ({"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'}, (50, 100, 60, 30)),
            ({"ratelimit-remaining": "3"}, (3, None, None, UNKNOWN_WINDOW_S)),
            # a reset of yesterday; windows and resets beyond any sense
            ({"ratelimit-remaining": "3", "ratelimit-reset": f"{NOW_S - 9:.0f}"}, (3, None, None, 0)),
            ({"ratelimit-remaining": "3;w=999999999"}, (3, None, LONGEST_WINDOW_S, LONGEST_WINDOW_S)),
            ({"ratelimit-remaining": "3", "ratelimit-reset": "999999999"}, (3, None, None, LONGEST_WINDOW_S)),
        ],
    )
    def test_every_form_is_read(
        self, fields: dict[str, str], expected: tuple[int, int | None, float | None, float]
    ) -> None:
        """Docker Hub's, the drafts' and the older ones."""
        assert told(fields) == expected

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"ratelimit-limit": "100;w=21600"},
            {"ratelimit-remaining": ""},
            {"ratelimit-remaining": "-1"},
            {"ratelimit-remaining": "many;w=21600"},
            {"ratelimit-remaining": "1e9"},
            {"ratelimit-remaining": "9" * 5000},
            # Azure: calls a second, without a limit
            {"x-ms-ratelimit-remaining-calls-per-second": "166.65"},
        ],
    )
    def test_what_tells_no_remainder_says_nothing(self, fields: dict[str, str]) -> None:
        """No guess is made."""
        assert parse_quota(fields, NOW_S) is None

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    "ratelimit-limit",
                    "ratelimit-remaining",
                    "ratelimit-reset",
                    "x-ratelimit-remaining",
                    "ratelimit",
                    "ratelimit-policy",
                    "docker-ratelimit-source",
                ]
            ),
            st.text(alphabet='0123456789;,=wrtq "-\u0661\u00b2', max_size=30) | st.text(max_size=30),
        )
    )
    def test_no_text_makes_it_fail(self, fields: dict[str, str]) -> None:
        """What registries send is untrusted; what is read stays within bounds."""
        quota = parse_quota(fields, NOW_S)
        assert quota is None or (quota.remaining >= 0 and 0 <= quota.passes_at_s - NOW_S <= LONGEST_WINDOW_S)

    @given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 86400))
    def test_docker_hubs_form_is_read_back(self, remaining: int, limit: int, window_s: int) -> None:
        """Whatever the numbers."""
        fields = {"ratelimit-limit": f"{limit};w={window_s}", "ratelimit-remaining": f"{remaining};w={window_s}"}
        assert told(fields) == (remaining, limit, window_s, window_s)


def hubs(remaining: int, limit: int | None = 100) -> Quota:
    return Quota(remaining, limit, 21600.0, NOW_S + 21600, NOW_S, "192.0.2.1")


class TestLow:
    @pytest.mark.parametrize(
        ("remaining", "limit", "low", "recovered"),
        [
            (10, 100, False, False),
            (9, 100, True, False),
            (0, 100, True, False),
            (20, 100, False, True),
            (0, 1, True, False),
            (1, 5, False, True),
            (0, None, False, True),
            (0, 0, False, True),
        ],
    )
    def test_less_than_a_tenth_is_low(self, remaining: int, limit: int | None, low: bool, recovered: bool) -> None:
        """A fifth has recovered; without a limit nothing is low."""
        quota = hubs(remaining, limit)
        assert (quota.is_low, quota.has_recovered) == (low, recovered)

    @pytest.mark.parametrize(
        ("quota", "method", "after_s", "spared"),
        [
            (hubs(9), "GET", 0, True),
            (hubs(9), "HEAD", 0, False),
            (hubs(10), "GET", 0, False),
            (hubs(9), "GET", 21599, True),
            (hubs(9), "GET", 21600, False),
            (hubs(9), "GET", -5, False),
            (Quota(1, 60, None, NOW_S + 60, NOW_S), "HEAD", 0, True),
            (Quota(1, 60, None, NOW_S + 60, NOW_S), "GET", 59, True),
            (Quota(1, 60, None, NOW_S + 60, NOW_S), "HEAD", 60, False),
        ],
    )
    def test_what_counts_is_spared_while_it_is_low(
        self, quota: Quota, method: str, after_s: float, spared: bool
    ) -> None:
        """At Docker Hub a HEAD is free; elsewhere nobody says so. Old news spare nothing."""
        assert spares(quota, method, NOW_S + after_s) is spared


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("text", "wait_s"),
        [
            ("30", 30.0),
            (" 30 ", 30.0),
            ("0", 0.0),
            ("100000", LONGEST_RETRY_AFTER_S),
            (formatdate(NOW_S + 90, usegmt=True), 90.0),
            (formatdate(NOW_S - 90, usegmt=True), 0.0),
            (formatdate(NOW_S + 10**6, usegmt=True), LONGEST_RETRY_AFTER_S),
            (f"{NOW_S + 45:.0f}", 45.0),
            (f"{NOW_S - 45:.0f}", 0.0),
            ("soon", None),
            ("", None),
            ("1.5", None),
            ("-3", None),
        ],
    )
    def test_seconds_dates_and_unix_times_are_read(self, text: str, wait_s: float | None) -> None:
        """RFC 9110 has the first two; Docker Hub sends the third."""
        assert retry_after_s({"Retry-After": text}, NOW_S) == wait_s

    def test_docker_hubs_older_name_is_read(self) -> None:
        """Only where the right one is missing."""
        assert retry_after_s({"X-Retry-After": f"{NOW_S + 45:.0f}"}, NOW_S) == 45.0
        assert retry_after_s({"X-Retry-After": "9", "Retry-After": "8"}, NOW_S) == 8.0

    @given(st.text(max_size=40) | st.text(alphabet="0123456789:, GMTonvJa-+", max_size=40))
    def test_no_text_makes_it_fail(self, text: str) -> None:
        """And none keeps a registry alone for longer than an hour."""
        wait_s = retry_after_s({"Retry-After": text}, NOW_S)
        assert wait_s is None or 0 <= wait_s <= LONGEST_RETRY_AFTER_S

    def test_a_backoff_doubles_up_to_its_bound(self) -> None:
        """However often it was refused."""
        waits_s = [backoff_s(refusals) for refusals in (1, 2, 3, 10, 10**6)]
        assert waits_s == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S] + [LONGEST_BACKOFF_S] * 2
