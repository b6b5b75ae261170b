"""Metrics for Prometheus, at `/metrics`.

What happens to a request is counted when its line is logged. What the rooms below count by themselves, in numbers that
only grow, is taken over from time to time (`take_over`), and before each answer. Labels have few values: registries,
classes, statuses, never an image or a client.

With PROMETHEUS_MULTIPROC_DIR set, several processes count together (prometheus-client, "Multiprocess Mode").
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from regproxy.engine.certificates import Certificates
from regproxy.oci.names import Registry
from regproxy.policy.breaker import Circuit, Closed, HalfOpen, Open
from regproxy.policy.tiers import RequestClass
from regproxy.stack.access_log import Entry
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus
from regproxy.store.activity import EndedIngest
from regproxy.store.errors import StoreError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

TAKE_OVER_INTERVAL_S = 5.0

MOST_REGISTRIES = 200
"""Wildcards could otherwise let clients make any number of label values; the rest is `other`."""

MOST_COUNTED = 5000

CLIENT_WINDOW_S = 300.0
MOST_CLIENTS = 100_000

_FIRST_BYTE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_INGEST_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class _Counted(NamedTuple):
    """What counts one kind of request: to look it up by labels each time would take three times as long."""

    requests: Counter
    responses: Counter
    sent: Counter
    first_byte: Histogram


class Metrics:
    """All of them; for the event loop."""

    def __init__(self, core: Core, certificates: Certificates) -> None:
        self._core = core
        self._certificates = certificates
        self.registry = CollectorRegistry()
        self._labels: set[str] = set()
        self._counted: dict[tuple[Registry, RequestClass, CacheStatus, int | None], _Counted] = {}
        self._clients: OrderedDict[str, float] = OrderedDict()
        self._requests = self._counter(
            "requests", "Requests to registries, answered or not", "registry", "request_class", "cache_status"
        )
        self._responses = self._counter("responses", "Answers to clients", "registry", "status")
        self._sent = self._counter("sent_bytes", "Bytes of bodies that clients were sent", "registry", "cache_status")
        self._received = self._counter("fetched_bytes", "Bytes of bodies that came from upstreams", "registry")
        self._failures = self._counter(
            "upstream_failures", "Requests to upstreams without a usable answer", "registry", "reason"
        )
        self._first_byte = Histogram(
            "registry_proxy_time_to_first_byte_seconds",
            "From the request's head to its answer's",
            ["cache_status"],
            buckets=_FIRST_BYTE_BUCKETS_S,
            registry=self.registry,
        )
        self._ingests = self._counter("ingests", "Downloads into the cache that have ended", "outcome")
        self._ingest_bytes = self._counter("ingested_bytes", "Bytes that downloads wrote into the cache")
        self._resumed = self._counter("ingests_resumed", "Downloads that went on where an earlier one had ended")
        self._ingest_duration = Histogram(
            "registry_proxy_ingest_duration_seconds",
            "How long downloads took",
            buckets=_INGEST_BUCKETS_S,
            registry=self.registry,
        )
        self._evicted = self._counter("evictions", "Contents that left the cache", "reason")
        self._evicted_bytes = self._counter("evicted_bytes", "Bytes that left the cache", "reason")
        self._in_progress = self._gauge("ingests_in_progress", "Downloads under way", "livesum")
        self._cache_bytes = self._gauge("cache_bytes", "What the cache takes on its disk", "mostrecent", "kind")
        self._cache_cap = self._gauge("cache_cap_bytes", "The most that it may take", "mostrecent")
        self._entries = self._gauge("cache_entries", "Rows of its index: contents and records", "mostrecent")
        self._oldest = self._gauge(
            "cache_oldest_access_age_seconds", "How long ago what is evicted next was used", "mostrecent"
        )
        self._breaker = self._gauge(
            "upstream_breaker_state", "0 answers, 1 is being tried, 2 gives no answer", "mostrecent", "upstream"
        )
        self._ca_expiry = self._gauge("ca_expiry_timestamp_seconds", "When the CA ends", "mostrecent")
        self._leaf_expiry = self._gauge(
            "leaf_expiry_timestamp_seconds", "When the leaf that ends first does so", "mostrecent"
        )
        self._active_clients = self._gauge(
            "active_clients", f"Client addresses that asked in the last {CLIENT_WINDOW_S:.0f} s", "livesum"
        )
        self._taken: dict[Counter, dict[tuple[str, ...], int]] = {}
        self._origins: set[str] = set()

    def count(self, entry: Entry) -> None:
        """Count a request that has been answered; a listener of the access log."""
        self._note_client(entry.client_ip, entry.began_s)
        exchange = entry.exchange
        if exchange is None:
            return
        key = exchange.registry, exchange.request_class, exchange.cache_status, entry.status
        counted = self._counted.get(key) or self._with_labels(*key)
        counted.requests.inc()
        counted.responses.inc()
        counted.sent.inc(entry.sent_bytes)
        if exchange.answered_at_s is not None:
            counted.first_byte.observe(max(0.0, exchange.answered_at_s - entry.began_s))

    def _with_labels(
        self, registry: Registry, request_class: RequestClass, cache_status: CacheStatus, status: int | None
    ) -> "_Counted":
        name = self._label(str(registry))
        cache = cache_status.value or "NONE"
        counted = _Counted(
            self._requests.labels(name, request_class.value, cache),
            self._responses.labels(name, "none" if status is None else str(status)),
            self._sent.labels(name, cache),
            self._first_byte.labels(cache),
        )
        if len(self._counted) < MOST_COUNTED:
            self._counted[registry, request_class, cache_status, status] = counted
        return counted

    async def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.take_over()
        await self._look_at_the_store()
        registry = self.registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    async def run(self) -> None:
        """Take over what the rooms count, until cancelled: another process may be the one that is asked."""
        while True:
            self.take_over()
            await asyncio.sleep(TAKE_OVER_INTERVAL_S)

    def take_over(self) -> None:
        """Bring all metrics up to date that are not counted by request."""
        if not self._core.ready:
            return
        self._take_over_store()
        self._take_over_upstreams()
        self._ca_expiry.set(self._core.authority.certificate.not_valid_after_utc.timestamp())
        ends = self._certificates.first_end_s()
        if ends is not None:
            self._leaf_expiry.set(ends)
        self._active_clients.set(self._count_clients(time.time()))

    def _take_over_store(self) -> None:
        store = self._core.store
        if not store.is_open:
            return
        activity, usage = store.activity, store.usage
        while activity.ended:
            self._count_ingest(activity.ended.popleft())
        self._grow(self._evicted, _by_label(activity.evicted))
        self._grow(self._evicted_bytes, _by_label(activity.evicted_bytes))
        self._in_progress.set(len(store.running_ingests()))
        for kind, size_bytes in (
            ("content", usage.content_bytes),
            ("partial", usage.partial_bytes),
            ("index", usage.index_bytes),
        ):
            self._cache_bytes.labels(kind).set(size_bytes)
        self._cache_cap.set(self._core.settings.cache_max_size_bytes)
        self._entries.set(usage.entries)

    def _take_over_upstreams(self) -> None:
        upstream = self._core.upstream
        self._grow(self._received, _by_label(upstream.meter.received_bytes))
        self._grow(self._failures, dict(upstream.meter.failures))
        states = upstream.circuits.states()
        for origin in self._origins | states.keys():
            self._breaker.labels(origin).set(_state_number(states.get(origin)))
        self._origins |= states.keys()

    def _count_ingest(self, ended: EndedIngest) -> None:
        self._ingests.labels(ended.outcome.value).inc()
        self._ingest_bytes.inc(ended.written_bytes)
        self._ingest_duration.observe(ended.duration_s)
        if ended.was_resumed:
            self._resumed.inc()

    async def _look_at_the_store(self) -> None:
        if self._core.ready and self._core.store.is_open:
            try:
                oldest_s = await self._core.store.oldest_access_s()
            except StoreError as error:
                self._core.store_failed(error)
            else:
                self._oldest.set(0.0 if oldest_s is None else max(0.0, time.time() - oldest_s))

    def _grow(self, counter: Counter, counts: Mapping[tuple[str, ...], int] | Mapping[tuple[str, str], int]) -> None:
        """Add what a number has grown by since it was looked at last."""
        taken = self._taken.setdefault(counter, {})
        for labels, count in counts.items():
            grown = count - taken.get(labels, 0)
            if grown > 0:
                counter.labels(*labels).inc(grown)
                taken[labels] = count

    def _label(self, registry: str) -> str:
        if registry in self._labels:
            return registry
        if len(self._labels) >= MOST_REGISTRIES:
            return "other"
        self._labels.add(registry)
        return registry

    def _note_client(self, client_ip: str, at_s: float) -> None:
        self._clients[client_ip] = at_s
        self._clients.move_to_end(client_ip)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)

    def _count_clients(self, now_s: float) -> int:
        while self._clients:
            client_ip, at_s = next(iter(self._clients.items()))
            if now_s - at_s < CLIENT_WINDOW_S:
                break
            del self._clients[client_ip]
        return len(self._clients)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"registry_proxy_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, mode: str, *labels: str) -> Gauge:
        return Gauge(f"registry_proxy_{name}", meaning, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]


def _state_number(circuit: Circuit | None) -> int:
    match circuit:
        case None | Closed():
            return 0
        case HalfOpen():
            return 1
        case Open():
            return 2


def _by_label[Name: str](counts: Mapping[Name, int]) -> dict[tuple[str, ...], int]:
    """Return counts by their one label; the copy is made in one step, for another thread may be counting."""
    return {(str(name),): count for name, count in list(counts.items())}
