"""The text of docs/soak.md."""

from collections.abc import Iterator

from lab.soak.content import CACHE_BYTES, MIB
from lab.soak.run import Report

_HEAD = """\
# Soak

`make soak` loads the proxy for ten minutes (`SOAK_MINUTES=60` for longer) and disturbs it, with real registries on loopback, and looks at
what is left of it. A run of half a minute is among the tests of `make test`. Both are judged by the same rules, in
`tests/lab/soak/run.py`; they were fixed before the first run.
"""
_MEANING = """\
At rest means: no client is connected. Memory is flat if the RSS at rest after the last round is at most that after the warm-up, a tenth
more, and 16 MiB. Descriptors, tasks and threads are compared with those from before the first client. Evictions are contents that were gone
from the cache's folder between two looks, so there were more. "Cut" are answers that ended early because an upstream went
down; what had come of them was right.
"""


def page(report: Report) -> str:
    """Return the page with the figures of one run."""
    return "\n".join([_HEAD, *_what(report), "", _MEANING, *_rests(report), "", "## Findings", "", *_findings(report)]) + "\n"


def _what(report: Report) -> Iterator[str]:
    plan, tally, events = report.plan, report.tally, report.events
    refused = sum(count for name, count in tally.counts.items() if name.startswith("refused"))
    yield "## Figures of the last run"
    yield ""
    yield "| What | Figure |"
    yield "| --- | --- |"
    yield f"| Command | `make soak SOAK_MINUTES={plan.rounds}` |"
    yield f"| Time | warm-up of {plan.warm_up_s:g} s, {plan.rounds} rounds of {plan.round_s:g} s, {report.took_s:.0f} s in all |"
    yield f"| Transfers at once | {tally.most_under_way} at most, scripted, half by each door |"
    yield f"| Transfers | {sum(tally.counts.values()):,} |"
    yield f"| ... read to the end, every byte right | {tally.counts['whole'] + tally.counts['slow']:,} |"
    yield f"| ... ranges, every byte right | {tally.counts['range']:,} |"
    yield f"| ... aborted by the client | {tally.counts['abort']:,} |"
    yield f"| ... cut in an outage | {tally.counts['cut']:,} |"
    yield f"| ... refused in an outage, with an OCI error | {refused:,} |"
    yield f"| ... redirected, as the cache had no room for the blob then | {tally.counts['redirected']:,} |"
    yield f"| Bytes that clients got | {tally.received_bytes / MIB:,.0f} MiB |"
    yield f"| Wrong bytes | {tally.counts['wrong']} |"
    yield f"| Pulls by skopeo and podman, right | {events.pulls} and {events.podman_pulls}; {events.failed_pulls} failed in an outage |"
    yield f"| Restarts of upstreams | {events.restarts} |"
    yield f"| Evictions seen | {events.evictions:,}, cap {CACHE_BYTES // MIB} MiB, most on disk {events.most_cache_bytes / MIB:.0f} MiB |"


def _rests(report: Report) -> Iterator[str]:
    yield "| At rest | RSS MiB | Descriptors | Threads | Tasks | Python objects | Partial files |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    names = ["before", "after the warm-up", *(f"after round {number}" for number in range(1, len(report.rests)))]
    rows = list(zip(names, [report.at_start, *report.rests], strict=True))
    if report.drained is not None:
        rows.append(("after everything was pulled once more", report.drained))
    for name, rest in rows:
        yield (
            f"| {name} | {rest.rss_bytes / MIB:.1f} | {rest.descriptors.total()} | {rest.threads} | {rest.tasks.total()} |"
            f" {rest.objects:,} | {rest.partial_files} |"
        )


def _findings(report: Report) -> list[str]:
    return [f"- {finding}" for finding in report.findings()] or ["None."]
