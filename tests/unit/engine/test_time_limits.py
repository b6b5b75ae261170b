"""How often connections are looked at; what is ended is shown in tests/e2e/test_time_limits.py."""

import pytest

from regproxy.engine.time_limits import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, TimeLimits


def limits(**seconds: float) -> TimeLimits:
    names = (
        "client_header_s",
        "client_body_s",
        "keepalive_s",
        "send_s",
        "upstream_connect_s",
        "upstream_send_s",
        "upstream_read_s",
        "upstream_commit_s",
        "tunnel_connect_s",
        "tunnel_silence_s",
    )
    return TimeLimits(**(dict.fromkeys(names, 60.0) | seconds))


@pytest.mark.parametrize(
    ("seconds", "pause_s"),
    [
        ({}, LONGEST_PAUSE_S),
        ({"send_s": 8.0}, 2.0),
        ({"send_s": 0.001}, SHORTEST_PAUSE_S),
        ({"send_s": 0.0}, LONGEST_PAUSE_S),
    ],
)
def test_the_shortest_limit_sets_the_pace(seconds: dict[str, float], pause_s: float) -> None:
    """Often enough for it, never often; 0 is no limit."""
    assert limits(**seconds).pause_s == pause_s
