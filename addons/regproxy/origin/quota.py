"""What is known of every registry's limits, for each account: how much is left, and until when it is left alone.

Fed by the answers to the proxy's own requests, and asked before each of them (`origin.authorized`). A registry that
answered 429 is not asked again by the same account before the time that it named; others are not held up. What a low
quota means is `policy.quota`.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from regproxy.origin.callers import Caller
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.tokens import Bounded
from regproxy.policy.freshness import Status
from regproxy.policy.quota import Quota, backoff_s, parse_quota, retry_after_s, spares
from regproxy.policy.redirects import Url

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownQuota:
    """One line of the view: no secret in it."""

    registry: str
    """Scheme, host and port."""
    caller: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class KnownRest:
    """A registry that is left alone."""

    registry: str
    caller: str
    path: str
    """Empty: all of the registry; else the one path whose content another host refused to give."""
    remaining_s: float


@dataclass(frozen=True, slots=True)
class _Account:
    registry: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class _Rest:
    until_s: float
    """By the monotonic clock."""
    refusals: int
    """How many 429 in a row did not say how long to wait."""


class Quotas:
    """Belongs to one event loop. `clock` is monotonic, `unix_time` is what quotas go by; both in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, unix_time: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._unix_time = unix_time
        self._quotas: Bounded[_Account, Quota] = Bounded()
        self._rests: Bounded[tuple[_Account, str], _Rest] = Bounded()
        self._told: Bounded[tuple[str, str], None] = Bounded()
        self.on_quota: Callable[[str, Caller, Quota], None] = lambda _registry, _caller, _quota: None
        """Called with what an answer said: registry, caller, quota."""
        self.on_rest: Callable[[str, Caller, str, float, int], None] = lambda *_: None
        """Called with a rest: registry, caller, path, end by the monotonic clock, refusals in a row."""

    def check(self, url: Url, method: str, caller: Caller, *, dispensable: bool) -> None:
        """Raise `UpstreamUnavailable` when this must not, or need not, be asked now.

        `dispensable` says that a stored answer can stand in: a low quota is kept for what has none.
        """
        account = _Account(url.origin, caller)
        now_s = self._clock()
        for path in ("", url.target):
            rest = self._rests.get((account, path))
            if rest is not None and now_s < rest.until_s:
                wait_s = math.ceil(rest.until_s - now_s)
                reason = f"{url.origin} answered 429 to {caller.name} and is asked again in {wait_s} s"
                raise UpstreamUnavailable(reason, Status(429), retry_at_s=rest.until_s)
        quota = self._quotas.get(account)
        if dispensable and quota is not None and spares(quota, method, self._unix_time()):
            left = f"{quota.remaining} of {quota.limit}"
            reason = f"the quota of {caller.name} at {url.origin} is low ({left}) and kept for what is not stored"
            raise UpstreamUnavailable(reason, Status(429))

    def observe(  # noqa: PLR0913 - who was asked for what by whom, and what came of it
        self, url: Url, method: str, caller: Caller, *, status: int, fields: Mapping[str, str], answered_by: str
    ) -> None:
        """Take note of an answer; `answered_by` is the origin that gave it, after redirects."""
        account = _Account(url.origin, caller)
        if answered_by == url.origin:
            quota = parse_quota(fields, self._unix_time())
            if quota is not None:
                self._note(account, quota)
        if status == 429:
            # A storage host that is overrun says nothing of the registry: only what led there is left alone.
            self._begin_rest(account, "" if answered_by == url.origin else url.target, fields)
        elif method != "HEAD":
            # Docker Hub answers every HEAD while it refuses the GETs.
            self._end_refusals(account, "")
            self._end_refusals(account, url.target)

    def hear_quota(self, registry: str, caller: Caller, quota: Quota) -> None:
        """Take over what another process of this proxy was told."""
        self._quotas[_Account(registry, caller)] = quota

    def hear_rest(self, registry: str, caller: Caller, path: str, until_s: float, refusals: int) -> None:
        """Take over a rest from another process of this proxy."""
        self._rests[_Account(registry, caller), path] = _Rest(until_s, refusals)

    def quotas(self) -> tuple[KnownQuota, ...]:
        """Return what is known, for metrics and for people."""
        return tuple(
            KnownQuota(account.registry, account.caller.name, quota) for account, quota in self._quotas.items()
        )

    def rests(self) -> tuple[KnownRest, ...]:
        """Return what is left alone now."""
        now_s = self._clock()
        return tuple(
            KnownRest(account.registry, account.caller.name, path.partition("?")[0], rest.until_s - now_s)
            for (account, path), rest in self._rests.items()
            if now_s < rest.until_s
        )

    def _end_refusals(self, account: _Account, path: str) -> None:
        """Forget a rest that is over, and with it how often one was needed."""
        rest = self._rests.get((account, path))
        if rest is not None and self._clock() >= rest.until_s:
            del self._rests[account, path]

    def _begin_rest(self, account: _Account, path: str, fields: Mapping[str, str]) -> None:
        now_s = self._clock()
        earlier = self._rests.get((account, path))
        told_s = retry_after_s(fields, self._unix_time())
        if told_s:
            until_s, refusals = now_s + told_s, 0
        elif earlier is not None and now_s < earlier.until_s:
            return  # asked before the rest began
        else:
            refusals = 1 if earlier is None else earlier.refusals + 1
            until_s = now_s + backoff_s(refusals)
        if earlier is not None and now_s < earlier.until_s:
            until_s = max(until_s, earlier.until_s)
        else:
            logger.warning(
                "%s answered 429 to %s: it is not asked again by this account for %d s%s",
                account.registry,
                account.caller.name,
                math.ceil(until_s - now_s),
                "" if told_s else " (it did not say for how long)",
            )
        self._rests[account, path] = _Rest(until_s, refusals)
        self.on_rest(account.registry, account.caller, path, until_s, refusals)

    def _note(self, account: _Account, quota: Quota) -> None:
        self._quotas[account] = quota
        self.on_quota(account.registry, account.caller, quota)
        # Docker Hub says whom it counts: several logins may be one account to it, and one token is not the next.
        fall = (account.registry, quota.source or f"{account.caller.name} {account.caller.key}")
        if quota.is_low and fall not in self._told:
            self._told[fall] = None
            window = "" if quota.window_s is None else f" in {quota.window_s:.0f} s"
            logger.warning(
                "%s: the quota of %s is low, %d of %d%s are left; stored answers are preferred until there is more",
                account.registry,
                account.caller.name,
                quota.remaining,
                quota.limit,
                window,
            )
        elif quota.has_recovered and fall in self._told:
            del self._told[fall]
            logger.info("%s: the quota of %s has recovered", account.registry, account.caller.name)
