"""The circuit breakers of all upstreams, by scheme, host and port; what they decide is `policy.breaker`.

Registry, token server and each host that a redirect names are asked apart and have breakers apart. One that is reached
through a proxy has its own, too: what fails on the way to it is its failure. Only hosts that fail are remembered.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from regproxy.origin.errors import UpstreamAway
from regproxy.origin.patience import CONNECT_BUDGET_S
from regproxy.policy import breaker
from regproxy.policy.breaker import CLOSED, Circuit, Closed, HalfOpen, Need, Open, Verdict

logger = logging.getLogger(__name__)

MOST_HOSTS = 1000
"""Wildcards could otherwise make a client fill the memory with names."""


class Circuits:
    """What is known of the upstreams that fail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()
        self._probed: dict[str, asyncio.Event] = {}
        self._probed_elsewhere: set[str] = set()
        self.on_change: Callable[[str, Circuit], None] = lambda _origin, _circuit: None
        """Called with a circuit that this process has changed."""

    def states(self) -> Mapping[str, Circuit]:
        """Return the circuits that are not simply closed, by origin, as they are now."""
        return MappingProxyType(dict(self._circuits))

    def state(self, origin: str) -> Circuit:
        """Return one circuit."""
        return self._circuits.get(origin, CLOSED)

    def is_due(self, origin: str) -> bool:
        """Whether the next probe that nobody waits for may go out."""
        return breaker.admit(self.state(origin), Need.PROBE, self._clock()) is Verdict.PROBE

    def refuse_early(self, origin: str, need: Need) -> None:
        """Raise `UpstreamAway` for a request that would be refused anyhow, before anything is asked for it."""
        if need is not Need.REQUIRED and breaker.admit(self.state(origin), need, self._clock()) is Verdict.REFUSE:
            raise self._away(origin)

    async def admit(self, origin: str, need: Need) -> "Admission":
        """Let a request go out, whose end the caller tells. Raises `UpstreamAway`.

        One that needs an answer waits for the probe that is out, as long as a connection may take; in the first seconds
        of an outage it waits for its turn, too.
        """
        circuit = self.state(origin)
        verdict = breaker.admit(circuit, need, self._clock())
        if verdict is Verdict.WAIT and isinstance(circuit, Open):
            await asyncio.sleep(breaker.next_attempt_s(circuit, need) - self._clock())
            verdict = breaker.admit(self.state(origin), need, self._clock())
        if verdict is Verdict.WAIT:
            await self._probe_ended(origin)
            verdict = breaker.admit(self.state(origin), need, self._clock())
        match verdict:
            case Verdict.ASK:
                return Admission(self, origin, is_probe=False)
            case Verdict.PROBE:
                self._probed[origin] = asyncio.Event()
                self.change(origin, breaker.half_open)
                return Admission(self, origin, is_probe=True)
            case Verdict.WAIT | Verdict.REFUSE:
                raise self._away(origin)

    def admit_other(self, origin: str) -> "Admission":
        """Let a request out that another client than ours sends. Raises `UpstreamAway`.

        It is no probe: nobody here limits how long it takes, and others would wait for it.
        """
        if breaker.admit(self.state(origin), Need.REQUIRED, self._clock()) is Verdict.REFUSE:
            raise self._away(origin)
        return Admission(self, origin, is_probe=False)

    def change(self, origin: str, change: Callable[[Circuit], Circuit]) -> None:
        """Replace a circuit, and say when it opens or closes."""
        before = self.state(origin)
        after = change(before)
        self._probed_elsewhere.discard(origin)
        self._set(origin, after)
        self._tell(origin, before, after)
        if after != before:
            self.on_change(origin, after)

    def hear(self, origin: str, circuit: Circuit) -> None:
        """Take over a circuit that another process of this proxy has changed."""
        self._set(origin, circuit)
        if isinstance(circuit, HalfOpen):
            self._probed.setdefault(origin, asyncio.Event())
            self._probed_elsewhere.add(origin)
        else:
            self._probed_elsewhere.discard(origin)

    def other_gone(self) -> None:
        """Give up the probes of other processes, one of which has died: the next may go out at once."""
        for origin in list(self._probed_elsewhere):
            self._set(origin, breaker.abandoned(self.state(origin)))
        self._probed_elsewhere.clear()

    def _set(self, origin: str, after: Circuit) -> None:
        if after == CLOSED:
            self._circuits.pop(origin, None)
        else:
            self._circuits[origin] = after
        if not isinstance(after, HalfOpen) and (probed := self._probed.pop(origin, None)) is not None:
            probed.set()
        if len(self._circuits) > MOST_HOSTS:
            forgotten, _ = self._circuits.popitem(last=False)
            if (probed := self._probed.pop(forgotten, None)) is not None:
                probed.set()

    def failed(self, origin: str, reason: str, *, is_probe: bool) -> None:
        """Note a request that got no answer."""
        now_s = self._clock()
        self.change(origin, lambda circuit: breaker.unanswered(circuit, reason, now_s, is_probe=is_probe))

    def answered(self, origin: str, status: int, *, is_probe: bool) -> None:
        """Note an answer."""
        if status < 500 and origin not in self._circuits:
            return
        now_s, reason = self._clock(), f"{origin} answered {status}"
        self.change(origin, lambda circuit: breaker.answered(circuit, status, reason, now_s, is_probe=is_probe))

    async def _probe_ended(self, origin: str) -> None:
        probed = self._probed.get(origin)
        if probed is not None:
            try:
                await asyncio.wait_for(probed.wait(), CONNECT_BUDGET_S)
            except TimeoutError:
                return

    def _away(self, origin: str) -> UpstreamAway:
        circuit, now_s = self.state(origin), self._clock()
        assert not isinstance(circuit, Closed)
        outage = circuit.outage
        since = datetime.fromtimestamp(time.time() - (now_s - outage.since_s), UTC)
        match circuit:
            case Open():
                wait_s = max(0.0, breaker.next_attempt_s(circuit, Need.REQUIRED) - now_s)
                then = f"the next request that needs it may try again in {wait_s:.1f} s"
            case HalfOpen():
                then = "it is being tried again now"
        text = f"{outage.reason}; no answer since {since:%Y-%m-%d %H:%M:%S} UTC, {then}"
        return UpstreamAway(text, origin, now_s - outage.since_s)

    def _tell(self, origin: str, before: Circuit, after: Circuit) -> None:
        match before, after:
            case Closed(), Open(outage):
                logger.warning(
                    "%s; what is stored is served without asking until %s answers again", outage.reason, origin
                )
            case ((Open(outage) | HalfOpen(outage)), Closed()):
                logger.info("%s answers again after %.0f s", origin, self._clock() - outage.since_s)
            case _:
                pass


class Admission:
    """One request that went out. Tell how it ended, once; what is told later is not heard."""

    def __init__(self, circuits: Circuits, origin: str, *, is_probe: bool) -> None:
        self._circuits = circuits
        self._origin = origin
        self.is_probe = is_probe
        self._is_told = False

    def answered(self, status: int) -> None:
        """There was an answer."""
        if not self._tell():
            self._circuits.answered(self._origin, status, is_probe=self.is_probe)

    def failed(self, reason: str) -> None:
        """There was none; `reason` is a sentence that names the host."""
        if not self._tell():
            self._circuits.failed(self._origin, reason, is_probe=self.is_probe)

    def left(self) -> None:
        """Nobody waited for the end."""
        if not self._tell() and self.is_probe:
            self._circuits.change(self._origin, breaker.abandoned)

    def _tell(self) -> bool:
        was_told, self._is_told = self._is_told, True
        return was_told
