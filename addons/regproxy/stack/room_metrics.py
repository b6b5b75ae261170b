"""What the rooms below count by themselves, in numbers that only grow, and what they are at now: taken over as metrics.

Whoever looks takes over first (`metrics.Metrics`). Nothing here is on the way of a request.
"""

import math
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from regproxy.engine.certificates import Certificates
from regproxy.engine.workers import own_place
from regproxy.origin.callers import ANONYMOUS as ANONYMOUS_CALLER
from regproxy.origin.callers import OPERATOR_PREFIX
from regproxy.origin.quota import KnownQuota
from regproxy.policy.breaker import Circuit, Closed, HalfOpen, Open
from regproxy.policy.quota import Quota
from regproxy.policy.readiness import State
from regproxy.stack.core import Core
from regproxy.stack.metric_families import Families, by_label, shared_directory
from regproxy.stack.process_metrics import WorkerProcessMetrics
from regproxy.stack.version import VERSION
from regproxy.store.activity import EndedIngest, Outcome, Reason
from regproxy.store.errors import StoreError

_INGEST_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

CLIENTS = "clients"
"""Stands for the own logins of all clients: who they are is in no metric."""

ANONYMOUS = "anonymous"

_ACCOUNT = ("registry", "account")

type _Account = tuple[str, str]
"""The values of these labels."""


class StoreMetrics:
    """The cache, its downloads, and what became of tags."""

    def __init__(self, families: Families, core: Core) -> None:
        self._families, self._core = families, core
        self._ingests = families.counter("ingests", "Downloads into the cache that have ended", "outcome")
        self._ingest_bytes = families.counter("ingested_bytes", "Bytes that downloads wrote into the cache")
        self._resumed = families.counter("ingests_resumed", "Downloads that went on where an earlier one had ended")
        self._duration = families.histogram("ingest_duration_seconds", "How long downloads took", _INGEST_BUCKETS_S)
        self._in_progress = families.gauge("ingests_in_progress", "Downloads under way", "livesum")
        self._evicted = families.counter("evictions", "Contents that left the cache", "reason")
        self._evicted_bytes = families.counter("evicted_bytes", "Bytes that left the cache", "reason")
        self._bytes = families.gauge("cache_bytes", "What the cache takes on its disk", "mostrecent", "kind")
        self._cap = families.gauge("cache_cap_bytes", "The most that it may take", "mostrecent")
        self._entries = families.gauge("cache_entries", "Rows of its index: contents and records", "mostrecent")
        self._oldest = families.gauge(
            "cache_oldest_access_age_seconds", "How long ago what is evicted next was used", "mostrecent"
        )
        self._changes = families.counter(
            "tag_changes", "Tags that moved, vanished or came back at their registry", "registry", "change"
        )
        self._readiness = families.gauge(
            "outage_readiness_images", "Images in use, by how they would do in an outage", "mostrecent", "state"
        )
        # A counter that begins with its first event shows Prometheus no increase.
        place = own_place()
        for state in State:
            gauge = self._readiness.labels(state.value)
            if place is None or place.is_first:  # of several processes the one that has set it last is believed
                gauge.set(0)
        for outcome in Outcome:
            self._ingests.labels(outcome.value)
        for reason in Reason:
            self._evicted.labels(reason.value)
            self._evicted_bytes.labels(reason.value)

    def take_over(self) -> None:
        """Bring them up to date, but for what must be waited for."""
        store, families = self._core.store, self._families
        if not store.is_open:
            return
        activity = store.activity
        while activity.ended:
            self._count(activity.ended.popleft())
        families.grow(self._evicted, by_label(activity.evicted))
        families.grow(self._evicted_bytes, by_label(activity.evicted_bytes))
        families.grow(self._changes, dict(activity.tag_changes))
        self._in_progress.set(store.filled_here())
        self._cap.set(self._core.settings.cache_max_size_bytes)
        if self._core.readiness is not None:
            for state, count in self._core.readiness.counts.items():
                self._readiness.labels(state.value).set(count)

    async def look(self) -> None:
        """Ask the index what is in no memory."""
        if not self._core.store.is_open:
            return
        try:
            usage, oldest_s = await self._core.store.look_at_usage(), await self._core.store.oldest_access_s()
        except StoreError as error:
            self._core.store_failed(error)
        else:
            self._bytes.labels("content").set(usage.content_bytes)
            self._bytes.labels("partial").set(usage.partial_bytes)
            self._bytes.labels("index").set(usage.index_bytes)
            self._entries.set(usage.entries)
            self._oldest.set(0.0 if oldest_s is None else max(0.0, time.time() - oldest_s))

    def _count(self, ended: EndedIngest) -> None:
        self._ingests.labels(ended.outcome.value).inc()
        self._ingest_bytes.inc(ended.written_bytes)
        self._duration.observe(ended.duration_s)
        if ended.was_resumed:
            self._resumed.inc()


class UpstreamMetrics:
    """What came from registries, whether they answer, and how often they may still be asked."""

    def __init__(self, families: Families, core: Core) -> None:
        self._families, self._core = families, core
        self._received = families.counter("fetched_bytes", "Bytes of bodies that came from upstreams", "registry")
        self._failures = families.counter(
            "upstream_failures", "Requests to upstreams without a usable answer", "registry", "reason"
        )
        self._breaker = families.gauge(
            "upstream_breaker_state", "0 answers, 1 is being tried, 2 gives no answer", "livemax", "upstream"
        )
        self._remaining = families.gauge(
            "quota_remaining", "What a registry last said is left; NaN when that is over", "mostrecent", *_ACCOUNT
        )
        self._limit = families.gauge(
            "quota_limit", "The most that it may be; NaN when the registry does not tell", "mostrecent", *_ACCOUNT
        )
        self._resting = families.gauge(
            "quota_resting_seconds", "How long a registry that answered 429 is left alone", "livemax", *_ACCOUNT
        )
        self._upstreams: set[str] = set()
        self._told: dict[_Account, Quota | None] = {}
        self._rested: set[_Account] = set()

    def take_over(self) -> None:
        """Bring them up to date."""
        upstream, families = self._core.upstream, self._families
        families.grow(self._received, by_label(upstream.meter.received_bytes))
        families.grow(self._failures, dict(upstream.meter.failures))
        self._take_over_breakers(upstream.circuits.states())
        self._take_over_quotas()

    def _take_over_breakers(self, states: Mapping[str, Circuit]) -> None:
        worst = dict.fromkeys(self._upstreams, 0)
        for origin, circuit in states.items():
            label = self._families.bounded(origin)
            worst[label] = max(worst.get(label, 0), _state_number(circuit))
        for label, state in worst.items():
            self._breaker.labels(label).set(state)
        self._upstreams = set(worst)

    def _take_over_quotas(self) -> None:
        quotas = self._core.upstream.quotas
        told: dict[_Account, Quota | None] = dict.fromkeys(self._told)
        told |= lowest((self._account(known.registry, known.caller), known) for known in _believed(quotas.quotas()))
        for account, quota in told.items():
            # Only news: another process that has asked since knows better.
            if account not in self._told or quota != self._told[account]:
                self._remaining.labels(*account).set(math.nan if quota is None else quota.remaining)
                self._limit.labels(*account).set(math.nan if quota is None or quota.limit is None else quota.limit)
        self._told = told
        rests = dict.fromkeys(self._rested, 0.0)
        for rest in quotas.rests():
            account = self._account(rest.registry, rest.caller)
            rests[account] = max(rests.get(account, 0.0), rest.remaining_s)
        for account, remaining_s in rests.items():
            self._resting.labels(*account).set(remaining_s)
        self._rested = set(rests)

    def _account(self, origin: str, caller: str) -> _Account:
        """Return the labels of an account; the registry as users call it, without the scheme."""
        return self._families.bounded(origin.partition("://")[2]), account_label(caller)


class ProcessMetrics:
    """What runs here, and until when its certificates hold."""

    def __init__(self, families: Families, core: Core, certificates: Certificates) -> None:
        self._core, self._certificates = core, certificates
        self._build = families.gauge(
            "build_info", "Always 1; its labels say what runs here", "mostrecent", "version", "mitmproxy", "python"
        )
        self._started = families.gauge("start_time_seconds", "Unix time of the newest process's start", "max")
        self._ca_expiry = families.gauge("ca_expiry_timestamp_seconds", "When the CA ends", "mostrecent")
        self._leaf_expiry = families.gauge(
            "leaf_expiry_timestamp_seconds", "When the leaf that ends first does so", "mostrecent"
        )
        is_worker = own_place() is not None and shared_directory() is not None
        self._worker = WorkerProcessMetrics(families) if is_worker else None
        self._build.labels(VERSION, version("mitmproxy"), platform.python_version()).set(1)
        self._started.set(time.time())

    def take_over(self) -> None:
        """Bring them up to date."""
        if self._worker is not None:
            self._worker.take_over()
        self._ca_expiry.set(self._core.ca.authorities.signing.certificate.not_valid_after_utc.timestamp())
        ends = self._certificates.first_end_s()
        if ends is not None:
            self._leaf_expiry.set(ends)


def account_label(caller: str) -> str:
    """Return what stands for a caller's name: an operator's login by its user, all clients by one word."""
    if caller.startswith(OPERATOR_PREFIX):
        return caller.removeprefix(OPERATOR_PREFIX)
    return ANONYMOUS if caller == ANONYMOUS_CALLER.name else CLIENTS


def lowest(quotas: Iterable[tuple[_Account, KnownQuota]]) -> dict[_Account, Quota]:
    """Return the one quota that stands for each account: the one that is used up first."""
    found: dict[_Account, Quota] = {}
    for account, known in quotas:
        if account not in found or known.quota.remaining < found[account].remaining:
            found[account] = known.quota
    return found


def _believed(quotas: Iterable[KnownQuota]) -> Iterable[KnownQuota]:
    now_s = time.time()
    return (known for known in quotas if not known.quota.has_passed(now_s))


def _state_number(circuit: Circuit) -> int:
    match circuit:
        case Closed():
            return 0
        case HalfOpen():
            return 1
        case Open():
            return 2
