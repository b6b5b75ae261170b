"""Half a minute of load and disturbance, and the rules by which it is judged. `make soak` does the same for long."""

import dataclasses
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.soak.content import MIB
from lab.soak.disturbance import Events
from lab.soak.footprint import CLIENT, UPSTREAM, Footprint
from lab.soak.run import Plan, Report, soak
from lab.soak.transfers import Tally

pytestmark = pytest.mark.e2e

QUIET = Footprint(100 * MIB, Counter({"file": 6, "socket": 2}), 10, Counter({"idle": 7}), 1000, 0, 0)
_FILES = 4096


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process, in which the clients are, descriptors for all of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(_FILES, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("many_files")
def test_nothing_is_left_of_500_transfers_at_once(lab: Lab, tmp_path: Path) -> None:
    """Aborts, restarts of upstreams, and a cache that is too small; every byte is right."""
    report = soak(lab, tmp_path, Plan(warm_up_s=5, round_s=10, rounds=1, is_long=False), print)
    assert report.findings() == []
    counts = report.tally.counts
    assert min(counts[name] for name in ("whole", "abort", "range", "slow")) > 0
    assert report.tally.most_under_way >= report.plan.clients // 2
    assert report.events.restarts > 0
    assert report.events.evictions > 0
    assert report.events.pulls > 0


def _report(last: Footprint = QUIET, drained: Footprint = QUIET, *, is_long: bool = False) -> Report:
    plan = Plan(warm_up_s=1, round_s=1, rounds=1, is_long=is_long)
    return Report(plan, Tally(), Events(), QUIET, [QUIET, last], drained)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at_rest: dataclasses.replace(at_rest, rss_bytes=130 * MIB), "memory"),
        (lambda at_rest: dataclasses.replace(at_rest, threads=11), "threads"),
        (lambda at_rest: dataclasses.replace(at_rest, tasks=Counter({"idle": 7, "new": 1})), "tasks"),
        (lambda at_rest: dataclasses.replace(at_rest, descriptors=QUIET.descriptors + Counter({CLIENT: 1})), CLIENT),
        (
            lambda at_rest: dataclasses.replace(at_rest, descriptors=QUIET.descriptors + Counter({"deleted file": 1})),
            "deleted file",
        ),
    ],
)
def test_each_leak_is_found(change: Callable[[Footprint], Footprint], said: str) -> None:
    """What is not as before is named."""
    (finding,) = _report(change(QUIET)).findings()
    assert said in finding


def test_connections_to_upstreams_are_judged_at_the_very_end() -> None:
    """They are kept for a while, so only a long soak waits for them."""
    kept = dataclasses.replace(QUIET, descriptors=QUIET.descriptors + Counter({UPSTREAM: 1}))
    assert _report(kept).findings() == []
    assert _report(kept, is_long=True).findings() == []
    assert len(_report(kept, kept, is_long=True).findings()) == 1


def test_wrong_bytes_and_partial_files_are_found() -> None:
    """So are tracebacks in the log."""
    report = _report(drained=dataclasses.replace(QUIET, partial_files=1))
    report.tally.wrong("a byte")
    report.trouble.append("Traceback")
    assert report.findings() == ["1 partial files are left", "a byte", "Traceback"]


def test_a_quiet_proxy_has_no_finding() -> None:
    """The rules let pass what is the same."""
    assert _report().findings() == []
