"""Metrics for Prometheus, at `/metrics`.

What happens to a request is counted when its line is logged. What the rooms below count by themselves is taken over
from time to time (`room_metrics`), and before each answer. Labels have few values: registries, classes, statuses, never
an image or a client. docs/metrics.md lists all of them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from regproxy.engine.certificates import Certificates
from regproxy.engine.crew import Crew
from regproxy.engine.workers import own_place
from regproxy.oci.names import Registry
from regproxy.policy.tiers import RequestClass
from regproxy.stack.access_log import Entry
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus
from regproxy.stack.metric_families import OTHER, Families
from regproxy.stack.room_metrics import ProcessMetrics, StoreMetrics, UpstreamMetrics
from regproxy.stack.shared_metrics import SharedStoreMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

TAKE_OVER_INTERVAL_S = 5.0

MOST_COUNTED = 5000

CLIENT_WINDOW_S = 300.0
MOST_CLIENTS = 100_000
CLIENT_TOLD_S = 60.0
"""How seldom other workers are told of a client that goes on."""

_FIRST_BYTE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_STATUSES = frozenset(HTTPStatus)


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
        self.families = families = Families()
        self._counted: dict[tuple[Registry, RequestClass, CacheStatus, int | None], _Counted] = {}
        self._clients: OrderedDict[str, float] = OrderedDict()
        self._tell_client: Callable[[str], None] | None = None
        self._told_clients: dict[str, float] = {}
        self._requests = families.counter(
            "requests", "Requests to registries, answered or not", "registry", "request_class", "cache_status"
        )
        self._responses = families.counter("responses", "Answers to clients", "registry", "status")
        self._sent = families.counter(
            "sent_bytes", "Bytes of bodies that clients were sent", "registry", "cache_status"
        )
        self._first_byte = families.histogram(
            "time_to_first_byte_seconds",
            "From the request's head to its answer's",
            _FIRST_BYTE_BUCKETS_S,
            "cache_status",
        )
        self._active_clients = families.gauge(
            "active_clients",
            f"Client addresses that were answered in the last {CLIENT_WINDOW_S:.0f} s",
            "livesum" if own_place() is None else "livemax",  # workers tell one another of their clients
        )
        self._store = StoreMetrics(families, core)
        self._upstreams = UpstreamMetrics(families, core)
        self._shared = SharedStoreMetrics(families, core)
        self._process = ProcessMetrics(families, core, certificates)

    def share(self, crew: Crew) -> None:
        """Know the clients of other workers, too: one that comes to several is one."""
        self._tell_client = lambda client_ip: crew.tell("client", client_ip, value=True)
        crew.on_fact("client", lambda client_ip, _: self._keep_client(client_ip, time.time()))

    def count(self, entry: Entry) -> None:
        """Count a request that has been answered; a listener of the access log."""
        self._note_client(entry.client_ip, time.time())
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
        name = self.families.bounded(str(registry))
        cache = cache_status.value or "NONE"
        counted = _Counted(
            self._requests.labels(name, request_class.value, cache),
            self._responses.labels(name, _status_label(status)),
            self._sent.labels(name, cache),
            self._first_byte.labels(cache),
        )
        if len(self._counted) < MOST_COUNTED:
            self._counted[registry, request_class, cache_status, status] = counted
        return counted

    async def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.take_over()
        if self._core.ready:
            await self._store.look()
        return self.families.text()

    async def run(self) -> None:
        """Take over what the rooms count, until cancelled: another process may be the one that is asked."""
        while True:
            self.take_over()
            await asyncio.sleep(TAKE_OVER_INTERVAL_S)

    def take_over(self) -> None:
        """Bring all metrics up to date that are not counted by request."""
        if not self._core.ready:
            return
        self._store.take_over()
        self._upstreams.take_over()
        self._shared.take_over()
        self._process.take_over()
        self._active_clients.set(self._count_clients(time.time()))

    def _note_client(self, client_ip: str, at_s: float) -> None:
        if self._tell_client is not None and at_s - self._told_clients.get(client_ip, 0.0) > CLIENT_TOLD_S:
            if len(self._told_clients) >= MOST_CLIENTS:
                self._told_clients.clear()
            self._told_clients[client_ip] = at_s
            self._tell_client(client_ip)
        self._keep_client(client_ip, at_s)

    def _keep_client(self, client_ip: str, at_s: float) -> None:
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


def _status_label(status: int | None) -> str:
    """Return the label of an answer's status; a registry that makes statuses up makes no labels."""
    if status is None:
        return "none"
    return str(status) if status in _STATUSES else OTHER
