"""Whether a host that gave no answer is asked again: a circuit breaker, one for each upstream host.

Closed: requests go out. Open: the host gave no answer, nothing goes out. Half open: one request is out to see whether
the host is back. Words of M. Nygard, "Release It!". A request that could be answered without the host never waits for
it; one that could not may be the probe itself, so that a host that is back is found by the first who needs it.

Times are seconds of one clock, which the caller reads. No request is made here.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import assert_never

ERRORS_BEFORE_OPEN = 5
"""So many 5xx in a row are an outage: one of them may be about one image."""

PROBE_INTERVAL_S = 2.0
"""Least time between two probes that nobody needs: a host that is back is found within it, if it is asked for."""

REST_S = 1.0
"""How long a failed request stands for the next ones that need the host: ten of them are not ten attempts."""

RESTART_S = 5.0
"""An outage that is younger may be a restart: who needs the host waits for the end of its rest, and is not refused."""


class Need(Enum):
    """How much depends on a request."""

    OPTIONAL = "something stored can be the answer"
    REQUIRED = "without an answer the client gets an error"
    PROBE = "nobody waits for the answer"


class Verdict(Enum):
    """What becomes of a request."""

    ASK = "goes out"
    PROBE = "goes out, and its end decides"
    WAIT = "waits for the end of the rest, or of the probe that is out"
    REFUSE = "does not go out"


@dataclass(frozen=True, slots=True)
class Outage:
    """Since when and why a host gives no answer."""

    since_s: float
    reason: str
    failed_at_s: float
    """When it was last asked in vain."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The host answers, as far as is known."""

    errors_in_a_row: int = 0
    """Answers with 5xx since the last good one."""


@dataclass(frozen=True, slots=True)
class Open:
    """The host gives no answer."""

    outage: Outage


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """The host gave no answer, and one request is out to see whether it does now."""

    outage: Outage


type Circuit = Closed | Open | HalfOpen

CLOSED = Closed()


def admit(circuit: Circuit, need: Need, now_s: float) -> Verdict:
    """Return what becomes of a request; after `Verdict.PROBE` the circuit is `half_open`."""
    match circuit:
        case Closed():
            return Verdict.ASK
        case Open(outage):
            if now_s >= next_attempt_s(circuit, need):
                return Verdict.PROBE
            return Verdict.WAIT if need is Need.REQUIRED and now_s - outage.since_s < RESTART_S else Verdict.REFUSE
        case HalfOpen():
            return Verdict.WAIT if need is Need.REQUIRED else Verdict.REFUSE
        case _:
            assert_never(circuit)


def next_attempt_s(circuit: Open, need: Need) -> float:
    """Return when such a request may be the next probe."""
    match need:
        case Need.REQUIRED:
            return circuit.outage.failed_at_s + REST_S
        case Need.PROBE:
            return circuit.outage.failed_at_s + PROBE_INTERVAL_S
        case Need.OPTIONAL:
            return float("inf")
        case _:
            assert_never(need)


def half_open(circuit: Circuit) -> Circuit:
    """Return the circuit while its probe is out."""
    return HalfOpen(circuit.outage) if isinstance(circuit, Open) else circuit


def answered(circuit: Circuit, status: int, reason: str, now_s: float, *, is_probe: bool) -> Circuit:
    """Return the circuit after an answer; `reason` says in words what a 5xx was."""
    if not 500 <= status <= 599:
        return CLOSED
    if isinstance(circuit, Closed) and circuit.errors_in_a_row + 1 < ERRORS_BEFORE_OPEN:
        return Closed(circuit.errors_in_a_row + 1)
    return unanswered(circuit, reason, now_s, is_probe=is_probe)


def unanswered(circuit: Circuit, reason: str, now_s: float, *, is_probe: bool) -> Circuit:
    """Return the circuit after a request that got no answer."""
    match circuit:
        case Closed():
            return Open(Outage(now_s, reason, now_s))
        case HalfOpen() if not is_probe:
            return circuit  # sent before the circuit opened: the probe will tell
        case Open(outage) | HalfOpen(outage):
            return Open(replace(outage, reason=reason, failed_at_s=now_s))
        case _:
            assert_never(circuit)


def abandoned(circuit: Circuit) -> Circuit:
    """Return the circuit after a probe that ended without telling anything; the next one may go out at once."""
    return Open(circuit.outage) if isinstance(circuit, HalfOpen) else circuit
