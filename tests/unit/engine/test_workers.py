"""What a worker is given, and how many there are for `auto`."""

import os
from pathlib import Path

import pytest

from regproxy.engine.crew import PLACE_VARIABLE, Place
from regproxy.engine.workers import usable_cores


def test_a_place_survives_the_environment() -> None:
    """What the supervisor writes the worker reads."""
    place = Place(2, is_first=False, channel_fd=5, board_fd=6, listening_fds=(7, 8))

    assert Place.of_environment({PLACE_VARIABLE: place.to_text()}) == place
    assert Place.of_environment({}) is None


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("50000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("nonsense", 8),
        (None, 8),
    ],
)
def test_a_control_groups_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, cores: int
) -> None:
    """A container with two of a node's cores gets two workers, not one for each core of the node."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)

    assert usable_cores(tmp_path / "cpu.max") == cores
