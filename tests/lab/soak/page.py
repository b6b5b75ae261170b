"""The text of docs/soak.md."""

from collections.abc import Iterator

from lab.soak.content import CACHE_BYTES, MIB
from lab.soak.run import Report

_HEAD = """\
# Soak

`make soak` loads the proxy for ten minutes (`SOAK_MINUTES=60` for longer) and disturbs it, with real registries on
loopback, and looks at what is left of it. A run of half a minute is among the tests of `make test`. Both are judged by
the same rules, in `tests/lab/soak/run.py`. What is measured, and the limit for memory, was fixed before the first
run. Short trials then showed what is by design and passes: a redirect where the cache has no room, the refusal of a
client that cannot be asked about in an outage, connections to upstreams that are kept for a minute or two.
"""
_MEANING = """\
At rest means: no client is connected. Memory is flat if the RSS at rest after the last round is at most that after
the warm-up, a tenth more, and 16 MiB. Descriptors and tasks are compared with those from before the first client,
threads with those after the warm-up, when the pools are full. Connections to upstreams are kept for a minute or two; at
the very end they must be gone.
"Cut" are answers that ended early because an upstream went down; what had come of them was right.
Evictions are contents that were gone from the cache's folder between two looks, so there were more.
Python objects are those that the collector looks at; what the start has made it does not (`gc.freeze`).
"""


def page(report: Report) -> str:
    """Return the page with the figures of one run."""
    return (
        "\n".join([_HEAD, *_what(report), "", _MEANING, *_rests(report), "", "## Findings", "", *_findings(report)])
        + "\n"
    )


def _what(report: Report) -> Iterator[str]:
    plan, tally, events = report.plan, report.tally, report.events
    counts = tally.counts
    refused = sum(count for name, count in counts.items() if name.startswith("refused"))
    minutes = (
        f"warm-up of {plan.warm_up_s:g} s, {plan.rounds} rounds of {plan.round_s:g} s, {report.took_s:.0f} s in all"
    )
    most = f"{tally.most_under_way} at most, scripted, half by each door; every second round has {plan.clients_of(2)}"
    failed = f"{events.failed_pulls} failed in an outage, {events.slow_pulls} were ended as too slow"
    on_disk = f"cap {CACHE_BYTES // MIB} MiB, most on disk {events.most_cache_bytes / MIB:.0f} MiB"
    yield from ("## Figures of the last run", "", "| What | Figure |", "| --- | --- |")
    for what, figure in (
        ("Command", f"`make soak SOAK_MINUTES={plan.rounds}`"),
        ("Time", minutes),
        ("Transfers at once", most),
        ("Transfers", f"{counts.total():,}"),
        ("... read to the end, every byte right", f"{counts['whole'] + counts['slow']:,}"),
        ("... ranges, every byte right", f"{counts['range']:,}"),
        ("... aborted by the client", f"{counts['abort']:,}"),
        ("... cut in an outage", f"{counts['cut']:,}"),
        ("... refused in an outage, with an OCI error", f"{refused:,}"),
        ("... redirected, as the cache had no room for the blob then", f"{counts['redirected']:,}"),
        ("Bytes that clients got", f"{tally.received_bytes / MIB:,.0f} MiB"),
        ("Wrong answers", f"{counts['wrong']}"),
        ("Pulls by skopeo and podman, right", f"{events.pulls} and {events.podman_pulls}; {failed}"),
        ("Restarts of upstreams", f"{events.restarts}"),
        ("Evictions seen", f"{events.evictions:,}, {on_disk}"),
    ):
        yield f"| {what} | {figure} |"


def _rests(report: Report) -> Iterator[str]:
    yield "| At rest | RSS MiB | Descriptors | Threads | Tasks | Python objects | Partial files |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    names = ["before", "after the warm-up", *(f"after round {number}" for number in range(1, len(report.rests)))]
    rows = list(zip(names, [report.at_start, *report.rests], strict=True))
    if report.drained is not None:
        rows.append(("after everything was pulled once more", report.drained))
    for name, rest in rows:
        figures = (rest.descriptors.total(), rest.threads, rest.tasks.total(), f"{rest.objects:,}", rest.partial_files)
        yield f"| {name} | {rest.rss_bytes / MIB:.1f} | {' | '.join(map(str, figures))} |"


def _findings(report: Report) -> list[str]:
    return [f"- {finding}" for finding in report.findings()] or ["None."]
