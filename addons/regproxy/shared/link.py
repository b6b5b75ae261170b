"""Whether the bucket answers. While it does not, asking costs nothing, and somebody looks every two seconds.

A bucket may answer a probe and fail with all else. So one that fails again soon after it answered is left alone longer.

The circuit breaker is that of the upstreams (`policy.breaker`): every request is one that could be done without, so a
single failure opens it and only the probe closes it. It is said once when it opens, and once when it closes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from regproxy.policy import breaker
from regproxy.policy.breaker import CLOSED, Circuit, Closed, HalfOpen, Need, Open, Verdict
from regproxy.shared.bucket import BucketError

_logger = logging.getLogger(__name__)

PROBE_LIMIT_S = 2.0
_LOOK_S = 0.5

STEADY_S = 10.0
"""What fails again sooner after it has answered is left alone for twice as long as before, up to the longest pause."""

LONGEST_PAUSE_S = 60.0
_SAID_S = 300.0
"""A bucket that comes and goes, or is full, is said once in so long."""


class BucketDown(Exception):  # noqa: N818 - the state of the bucket
    """The bucket is not asked, or has just failed: go on without it."""


class Link:
    """One way to the bucket, to read or to write. For the event loop."""

    def __init__(self, fails: str, works: str, probe: Callable[[], Awaitable[object]]) -> None:
        self._fails, self._works, self._probe = fails, works, probe
        self._circuit: Circuit = CLOSED
        self._said_at_s = float("-inf")
        self._is_said = False
        self._closed_at_s = float("-inf")
        self._pause_s = breaker.PROBE_INTERVAL_S
        self.failures = 0
        """Requests without an answer, or with one that is an error."""
        self.on_failed: Callable[[str], None] = lambda _: None
        """Called when it begins to fail, with the reason."""

    @property
    def is_up(self) -> bool:
        """Whether requests go out."""
        return isinstance(self._circuit, Closed)

    def require(self) -> None:
        """Raise BucketDown when requests do not go out."""
        if breaker.admit(self._circuit, Need.OPTIONAL, time.monotonic()) is not Verdict.ASK:
            raise BucketDown

    async def ask[T](self, call: Callable[[], Awaitable[T]], limit_s: float | None) -> T:
        """Return the answer to a request. Raises BucketDown, and what is not the bucket's failure."""
        self.require()
        return await self.go_on(call, limit_s)

    async def go_on[T](self, call: Callable[[], Awaitable[T]], limit_s: float | None) -> T:
        """Return more of an answer that has begun: another request's failure says nothing of it. Raises as `ask`."""
        try:
            async with asyncio.timeout(limit_s):
                return await call()
        except TimeoutError:
            self.failed(f"it did not answer in {limit_s:g} s")
        except BucketError as error:
            self.failed(str(error))
        raise BucketDown

    def failed(self, reason: str, *, is_probe: bool = False) -> None:
        """Note a failure."""
        self.failures += 1
        before, now_s = self._circuit, time.monotonic()
        self._circuit = breaker.unanswered(before, reason, now_s, is_probe=is_probe)
        if isinstance(before, Closed):
            self._choose_pause(now_s)
            self._is_said = now_s - self._said_at_s > _SAID_S
            self._said_at_s = now_s if self._is_said else self._said_at_s
            _logger.log(logging.WARNING if self._is_said else logging.DEBUG, "%s: %s", self._fails, reason)
            self.on_failed(reason)

    def hear_failed(self, reason: str) -> None:
        """Take over a failure that another process has noted, and said."""
        if self.is_up:
            self._said_at_s, self._is_said = time.monotonic(), False
            self._circuit = breaker.unanswered(self._circuit, reason, self._said_at_s, is_probe=False)
            self._choose_pause(self._said_at_s)

    def _choose_pause(self, now_s: float) -> None:
        is_again = now_s - self._closed_at_s < STEADY_S
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if is_again else breaker.PROBE_INTERVAL_S

    @property
    def is_to_be_looked_at(self) -> bool:
        """Whether it is time for a probe."""
        match self._circuit:
            case Open(outage):
                return time.monotonic() - outage.failed_at_s >= self._pause_s
            case Closed() | HalfOpen():
                return False

    async def keep_looking(self) -> None:
        """Probe while it does not answer, until cancelled."""
        while True:
            if self.is_to_be_looked_at:
                await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Ask once whether the bucket answers."""
        before = self._circuit = breaker.half_open(self._circuit)
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                await self._probe()
        except TimeoutError:
            self.failed(f"it did not answer in {PROBE_LIMIT_S:g} s", is_probe=True)
        except BucketError as error:
            self.failed(str(error), is_probe=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody has to go on looking
            self.failed(type(error).__name__, is_probe=True)
        else:
            self._circuit = CLOSED
            match before:
                case HalfOpen(outage) | Open(outage):
                    level = logging.WARNING if self._is_said else logging.DEBUG
                    self._closed_at_s = time.monotonic()
                    _logger.log(level, "%s again after %.0f s", self._works, self._closed_at_s - outage.since_s)
                case Closed():
                    pass
