"""The soak: warm up, load for some rounds with a rest after each, pull everything once more, and see what is left.

How it is judged (`findings`); what is measured and the limit for memory were fixed before the first run:

- memory: RSS at rest after the last round is at most that after the warm-up, a tenth more, and 16 MiB;
- descriptors of each kind, tasks and threads at rest are no more than before the first client came (threads: than after
  the warm-up, when the pools are full), and no deleted file is held open; connections to upstreams are kept for a
  minute or two, so they are counted at the very end of a long soak only;
- no partial file is left when everything has been pulled to its end;
- every byte that any client got is the right one; no connection was refused, no client got nothing for two minutes; the
  errors of an outage have the specification's form, and none comes when all upstreams are up;
- the log has no traceback;
- the cache's files never took more than its cap (and the index's log, which is outside of it).
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab.lab import Lab
from lab.proxy import Proxy
from lab.soak.census import FILE_VARIABLE
from lab.soak.content import CACHE_BYTES, HOSTS, MIB, SoakContent, make_content, start_upstreams
from lab.soak.disturbance import Disturbance, Events
from lab.soak.footprint import UPSTREAM, Footprint, measure
from lab.soak.transfers import Crowd, Tally

CLIENTS = 500
OUTSIDE_THE_CAP_BYTES = 40 * MIB
"""SQLite's write-ahead log and directories, and what is being written while somebody looks."""

_CENSUS = Path(__file__).with_name("census.py")
_REST_LIMIT_S = 60.0
_POOLED_LIMIT_S = 180.0
_REST_POLL_S = 0.5
_ALLOWED_GROWTH_BYTES = 16 * MIB
_CALMER = 8
_ALLOWED_GROWTH_PART = 0.10
_TROUBLE = ("Traceback", "never retrieved", "ResourceWarning", "was never awaited", "Addon error")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long."""

    warm_up_s: float
    round_s: float
    rounds: int
    is_long: bool
    """With a wait for the last connection to an upstream."""
    clients: int = CLIENTS

    def clients_of(self, number: int) -> int:
        """Return how many there are in a round: each second one is calmer, so that real clients come to their end."""
        return self.clients // _CALMER if number and number % 2 == 0 else self.clients


@dataclass(slots=True)
class Report:
    """What was done and what is left."""

    plan: Plan
    tally: Tally
    events: Events
    at_start: Footprint
    rests: list[Footprint] = field(default_factory=list)
    """After the warm-up and after each round."""
    drained: Footprint | None = None
    """When everything has been pulled once more."""
    trouble: list[str] = field(default_factory=list)
    """Lines of the log that must not be."""
    took_s: float = 0.0

    def findings(self) -> list[str]:
        """Return what is not as it must be."""
        return [*self._leaks(), *self.tally.errors, *self.events.wrong, *self.trouble]

    def _leaks(self) -> Iterator[str]:
        first, last = self.rests[0], self.rests[-1]
        allowed_bytes = first.rss_bytes * (1 + _ALLOWED_GROWTH_PART) + _ALLOWED_GROWTH_BYTES
        if last.rss_bytes > allowed_bytes:
            yield f"memory: {last.rss_bytes / MIB:.0f} MiB at the end, {first.rss_bytes / MIB:.0f} after the warm-up"
        judged = self.drained if self.drained is not None and self.plan.is_long else last
        for kind, count in (judged.descriptors - self.at_start.descriptors).items():
            if kind == UPSTREAM and not self.plan.is_long:
                continue
            yield f"descriptors: {count} more of the kind {kind}"
        for name, count in (last.tasks - self.at_start.tasks).items():
            yield f"tasks: {count} more of {name}"
        if last.threads > first.threads:
            yield f"threads: {last.threads} at the end, {first.threads} after the warm-up"
        if self.drained is not None and self.drained.partial_files:
            yield f"{self.drained.partial_files} partial files are left"
        if self.events.most_cache_bytes > CACHE_BYTES + OUTSIDE_THE_CAP_BYTES:
            yield f"the cache took {self.events.most_cache_bytes / MIB:.0f} MiB"


def soak(lab: Lab, directory: Path, plan: Plan, say: Callable[[str], None]) -> Report:
    """Do it all. The proxy is the project's own, with one addon more (`census`)."""
    census_file = directory / "census.json"
    settings = {
        "CACHE_MAX_SIZE": str(CACHE_BYTES),
        "CACHE_MIN_FREE": "0",
        "DOWNLOAD_PART_SIZE": "4m",
        "NOT_FOUND_TIME": "0",
        FILE_VARIABLE: str(census_file),
        "WORKERS": "1",  # the census is of one process
    }
    start_upstreams(lab)
    content = make_content(lab, directory)
    began_s = time.monotonic()
    with lab.proxy(directory / "proxy", settings, ["-s", str(_CENSUS)]) as proxy:
        tally = Tally()
        crowd = Crowd(proxy.address, proxy.ca_file, content, tally)
        disturbance = Disturbance(lab, proxy, content, directory)
        report = Report(plan, tally, disturbance.events, measure(proxy, census_file))
        for number in range(plan.rounds + 1):
            seconds = plan.round_s if number else plan.warm_up_s
            is_calm = plan.clients_of(number) < plan.clients
            with disturbance.going_on(f"soak {number}", with_podman=is_calm):
                asyncio.run(crowd.run(plan.clients_of(number), seconds, f"soak {number}"))
            report.rests.append(_rest(proxy, census_file, report.at_start))
            say(f"{'round' if number else 'warm-up'} {number}: {_line(report)}")
        pulls = report.events.pulls
        disturbance.pull_one(HOSTS[0], 0)
        if report.events.pulls == pulls:
            report.events.wrong.append("skopeo failed with all upstreams up")
        report.drained = _drain(proxy, census_file, crowd, content, report)
        report.trouble = [line[:500] for line in proxy.log.splitlines() if any(word in line for word in _TROUBLE)]
        (directory / "proxy.log").write_text(proxy.log)
    report.took_s = time.monotonic() - began_s
    return report


def _drain(proxy: Proxy, census_file: Path, crowd: Crowd, content: SoakContent, report: Report) -> Footprint:
    """Pull everything to its end, while all upstreams are up."""
    refused = sum(count for name, count in crowd.tally.counts.items() if name.startswith("refused"))
    whole = crowd.tally.counts["whole"]
    asyncio.run(crowd.pull_all())
    still = sum(count for name, count in crowd.tally.counts.items() if name.startswith("refused")) - refused
    if still or crowd.tally.counts["whole"] - whole != len(content.pieces):
        crowd.tally.wrong(f"at rest {crowd.tally.counts['whole'] - whole} of {len(content.pieces)} pulls went well")
    return _rest(proxy, census_file, report.at_start, with_pool=report.plan.is_long)


def _rest(proxy: Proxy, census_file: Path, at_start: Footprint, *, with_pool: bool = False) -> Footprint:
    """Wait until the proxy holds what it held at its start, for a while at most, and measure."""
    until_s = time.monotonic() + (_POOLED_LIMIT_S if with_pool else _REST_LIMIT_S)
    while True:
        found = measure(proxy, census_file)
        more = found.descriptors - at_start.descriptors
        is_at_rest = not (more.keys() - (set() if with_pool else {UPSTREAM})) and not (found.tasks - at_start.tasks)
        if is_at_rest or time.monotonic() > until_s:
            return found
        time.sleep(_REST_POLL_S)


def _line(report: Report) -> str:
    rest, counts = report.rests[-1], report.tally.counts
    return (
        f"{sum(counts.values())} transfers {dict(counts)}, {report.tally.received_bytes / MIB:.0f} MiB,"
        f" most at once {report.tally.most_under_way}, restarts {report.events.restarts},"
        f" skopeo {report.events.pulls}, podman {report.events.podman_pulls}, failed {report.events.failed_pulls},"
        f" slow {report.events.slow_pulls},"
        f" evictions {report.events.evictions}; rest: RSS {rest.rss_bytes / MIB:.1f} MiB, {dict(rest.descriptors)},"
        f" {rest.threads} threads, {rest.tasks.total()} tasks, {rest.objects} objects, {rest.partial_files} partial"
    )
