"""The circuit breaker: when a host that gave no answer is asked again, and by whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from regproxy.policy.breaker import (
    CLOSED,
    ERRORS_BEFORE_OPEN,
    PROBE_INTERVAL_S,
    REST_S,
    Circuit,
    Closed,
    HalfOpen,
    Need,
    Open,
    Outage,
    Verdict,
    abandoned,
    admit,
    answered,
    half_open,
    next_attempt_s,
    unanswered,
)

OPEN = Open(Outage(100.0, "refused", 100.0))
OLD = Open(Outage(0.0, "refused", 100.0))
HALF_OPEN = HalfOpen(OPEN.outage)
CIRCUITS = (CLOSED, Closed(2), OPEN, HALF_OPEN)


@pytest.mark.parametrize(
    ("circuit", "need", "now_s", "verdict"),
    [
        pytest.param(CLOSED, Need.OPTIONAL, 0.0, Verdict.ASK, id="closed, optional"),
        pytest.param(Closed(ERRORS_BEFORE_OPEN - 1), Need.REQUIRED, 0.0, Verdict.ASK, id="closed, required"),
        pytest.param(CLOSED, Need.PROBE, 0.0, Verdict.ASK, id="closed, probe"),
        pytest.param(OPEN, Need.OPTIONAL, 100.0, Verdict.REFUSE, id="open, optional"),
        pytest.param(OPEN, Need.OPTIONAL, 10.0**9, Verdict.REFUSE, id="open for long, optional: at no client's cost"),
        pytest.param(OPEN, Need.REQUIRED, 100.0 + REST_S / 2, Verdict.WAIT, id="open, required, at rest: a restart"),
        pytest.param(OLD, Need.REQUIRED, 100.0 + REST_S / 2, Verdict.REFUSE, id="open for long, required, at rest"),
        pytest.param(OLD, Need.REQUIRED, 100.0 + REST_S, Verdict.PROBE, id="open for long, required"),
        pytest.param(OPEN, Need.REQUIRED, 100.0 + REST_S, Verdict.PROBE, id="open, required"),
        pytest.param(OPEN, Need.PROBE, 100.0 + PROBE_INTERVAL_S - 0.1, Verdict.REFUSE, id="open, probe, too early"),
        pytest.param(OPEN, Need.PROBE, 100.0 + PROBE_INTERVAL_S, Verdict.PROBE, id="open, probe"),
        pytest.param(HALF_OPEN, Need.OPTIONAL, 10.0**9, Verdict.REFUSE, id="half open, optional"),
        pytest.param(HALF_OPEN, Need.REQUIRED, 10.0**9, Verdict.WAIT, id="half open, required"),
        pytest.param(HALF_OPEN, Need.PROBE, 10.0**9, Verdict.REFUSE, id="half open, probe: one at a time"),
    ],
)
def test_who_may_ask(circuit: Circuit, need: Need, now_s: float, verdict: Verdict) -> None:
    """Who can do without the host never asks one that is away; who cannot asks, one at a time."""
    assert admit(circuit, need, now_s) is verdict


@given(st.floats(0, 10**6))
def test_the_next_attempt_is_the_first_that_may_go_out(now_s: float) -> None:
    """The time that is told to clients is the one that is kept."""
    for need in (Need.REQUIRED, Need.PROBE):
        assert (admit(OPEN, need, now_s) is Verdict.PROBE) is (now_s >= next_attempt_s(OPEN, need))


@pytest.mark.parametrize("circuit", CIRCUITS, ids=repr)
@pytest.mark.parametrize("status", [200, 206, 302, 401, 403, 404, 408, 429])
@pytest.mark.parametrize("is_probe", [True, False])
def test_any_answer_closes(circuit: Circuit, status: int, *, is_probe: bool) -> None:
    """A host that says no, or not now, is there; a rate limit is no outage."""
    assert answered(circuit, status, "", 200.0, is_probe=is_probe) == CLOSED


def test_one_request_without_an_answer_opens() -> None:
    """The next ones need not find out by themselves."""
    circuit = unanswered(Closed(3), "refused", 7.0, is_probe=False)
    assert circuit == Open(Outage(7.0, "refused", 7.0))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_errors_in_a_row_open(status: int) -> None:
    """One 5xx may be about one image; so many of them are about the host."""
    circuit: Circuit = CLOSED
    for count in range(1, ERRORS_BEFORE_OPEN):
        circuit = answered(circuit, status, "it answered", float(count), is_probe=False)
        assert circuit == Closed(count)
    circuit = answered(circuit, status, "it answered", 9.0, is_probe=False)
    assert circuit == Open(Outage(9.0, "it answered", 9.0))


def test_a_probe_that_fails_opens_again_and_the_beginning_stays() -> None:
    """Clients are told since when, and the latest reason."""
    for failed in (
        unanswered(HALF_OPEN, "timeout", 105.0, is_probe=True),
        answered(HALF_OPEN, 503, "timeout", 105.0, is_probe=True),
    ):
        assert failed == Open(Outage(100.0, "timeout", 105.0))


def test_a_late_failure_is_not_the_probe_s() -> None:
    """What was sent before the circuit opened must not end the probe that is out."""
    assert unanswered(HALF_OPEN, "timeout", 105.0, is_probe=False) == HALF_OPEN
    assert answered(HALF_OPEN, 500, "it answered", 105.0, is_probe=False) == HALF_OPEN


def test_an_abandoned_probe_leaves_room_for_the_next() -> None:
    """It has told nothing, so nobody has to rest from it."""
    assert abandoned(HALF_OPEN) == OPEN
    assert [abandoned(circuit) for circuit in (CLOSED, OPEN)] == [CLOSED, OPEN]
    assert [half_open(circuit) for circuit in (CLOSED, OPEN, HALF_OPEN)] == [CLOSED, HALF_OPEN, HALF_OPEN]


class OneHost(RuleBasedStateMachine):
    """Clients of every need and a host that goes and comes, in any order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit: Circuit = CLOSED
        self.now_s = 0.0
        self.probes_out = 0
        self.others_out = 0

    @rule(seconds=st.sampled_from([0.0, 0.5, REST_S, PROBE_INTERVAL_S]))
    def time_passes(self, seconds: float) -> None:
        """Turn the clock."""
        self.now_s += seconds

    @rule(need=st.sampled_from(Need))
    def ask(self, need: Need) -> None:
        """Let a client ask."""
        before = self.circuit
        match admit(self.circuit, need, self.now_s):
            case Verdict.ASK:
                self.others_out += 1
                assert isinstance(before, Closed)
            case Verdict.PROBE:
                self.probes_out += 1
                self.circuit = half_open(self.circuit)
                assert need is not Need.OPTIONAL
            case Verdict.WAIT | Verdict.REFUSE:
                assert not isinstance(before, Closed)

    @precondition(lambda self: self.probes_out)
    @rule(outcome=st.sampled_from(["answer", "error", "none", "left"]))
    def the_probe_ends(self, outcome: str) -> None:
        """End a probe, in any way."""
        self.probes_out -= 1
        if outcome == "left":
            self.circuit = abandoned(self.circuit)
        else:
            self.end(outcome, is_probe=True)
        assert not isinstance(self.circuit, HalfOpen)

    @precondition(lambda self: self.others_out)
    @rule(outcome=st.sampled_from(["answer", "error", "none"]))
    def another_request_ends(self, outcome: str) -> None:
        """End a request that was sent while the circuit was closed."""
        self.others_out -= 1
        self.end(outcome, is_probe=False)

    def end(self, outcome: str, *, is_probe: bool) -> None:
        """Tell how a request ended."""
        before = self.circuit
        if outcome == "none":
            self.circuit = unanswered(before, "none", self.now_s, is_probe=is_probe)
            assert not isinstance(self.circuit, Closed)
        else:
            status = 200 if outcome == "answer" else 503
            self.circuit = answered(before, status, "error", self.now_s, is_probe=is_probe)
        if outcome == "answer":
            assert self.circuit == CLOSED

    @invariant()
    def a_half_open_circuit_has_its_probe_out(self) -> None:
        """Without one it would stay so for ever."""
        if isinstance(self.circuit, HalfOpen):
            assert self.probes_out >= 1

    @invariant()
    def who_needs_the_host_gets_to_it(self) -> None:
        """However an outage came about: after a rest a request that needs the host goes out, or one is out."""
        later_s = self.now_s + REST_S
        assert admit(self.circuit, Need.REQUIRED, later_s) is not Verdict.REFUSE

    @invariant()
    def an_outage_does_not_begin_after_its_last_failure(self) -> None:
        """Keep the times in their order."""
        if not isinstance(self.circuit, Closed):
            assert self.circuit.outage.since_s <= self.circuit.outage.failed_at_s <= self.now_s


TestOneHost = OneHost.TestCase
