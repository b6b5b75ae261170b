"""What one client's request cost upstream: the hops that were asked, how long each took, and the bytes that came.

For the access log, whose `upstream`, `upstream_response_time` and `proxy_host` are nginx's: hops of one attempt are
joined by a colon, attempts by a comma (nginx manual, `$upstream_addr`).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from regproxy.policy.redirects import Url

MOST_ATTEMPTS = 8
"""A download over a bad line may need hundreds; the first ones tell what there is to tell."""


@dataclass(slots=True)
class Hop:
    """One request and its answer."""

    host: str
    """As nginx's `$proxy_host` has it: with the port unless that is the scheme's own."""
    began_s: float
    """On the monotonic clock."""
    ended_s: float | None = None
    """None while the answer is still read."""
    address: str = ""
    """IP address and port that answered; empty when no connection came about."""


@dataclass(slots=True)
class Attempt:
    """A request and the redirects it led to."""

    clock: Callable[[], float]
    hops: list[Hop] = field(default_factory=list)
    ended: bool = False

    def begin_hop(self, url: Url) -> Hop:
        """Note that a URL is being asked; what was asked before has answered."""
        self.end_hop()
        hop = Hop(url.authority, self.clock())
        self.hops.append(hop)
        return hop

    def end_hop(self) -> None:
        """Note that the last hop's answer has been read."""
        if self.hops and self.hops[-1].ended_s is None:
            self.hops[-1].ended_s = self.clock()

    def end(self) -> None:
        """Note that the whole attempt is over."""
        self.end_hop()
        self.ended = True


@dataclass(slots=True)
class Trace:
    """Everything that was asked for one client's request, one attempt after the other."""

    clock: Callable[[], float] = time.monotonic
    attempts: list[Attempt] = field(default_factory=list)
    received_bytes: int = 0
    """Body bytes from upstreams, of all attempts."""
    opener: str = ""
    """Whose login the registry answered to, as `policy.openers.opener_text` has it."""
    from_bucket: bool = False
    """Whether the answer, or what it was found by, came from the shared store."""

    def begin(self) -> Attempt:
        """Return a new attempt. One beside another that is under way (a part of a blob) is not told of."""
        attempt = Attempt(self.clock)
        if len(self.attempts) < MOST_ATTEMPTS and all(earlier.ended for earlier in self.attempts):
            self.attempts.append(attempt)
        return attempt

    @property
    def last_host(self) -> str | None:
        """The host that was asked last: a CDN after a redirect; None when none was asked."""
        hops = self.attempts[-1].hops if self.attempts else []
        return hops[-1].host if hops else None

    def addresses(self) -> str:
        """Return the addresses that answered."""
        return _joined((hop.address or hop.host for hop in attempt.hops) for attempt in self.attempts)

    def times_s(self) -> str:
        """Return the seconds that each hop took, with three decimals."""
        now_s = self.clock()
        return _joined(
            (f"{(now_s if hop.ended_s is None else hop.ended_s) - hop.began_s:.3f}" for hop in attempt.hops)
            for attempt in self.attempts
        )


def _joined(attempts: Iterable[Iterable[str]]) -> str:
    return ", ".join(" : ".join(hops) for hops in attempts)
