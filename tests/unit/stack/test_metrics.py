"""What is counted, under which labels, and that it is what happened."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from mitmproxy import http
from prometheus_client.parser import text_string_to_metric_families

from regproxy.engine.certificates import Certificates
from regproxy.engine.http_layer import Door
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import parse_endpoint
from regproxy.oci.names import Registry as RegistryName
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.redirects import Url
from regproxy.policy.tiers import RequestClass
from regproxy.stack import metrics as metrics_module
from regproxy.stack.access_log import Entry, UpstreamPart
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange
from regproxy.stack.metrics import Metrics
from regproxy.stack.metrics_page import MetricsPage
from unit.stack.conftest import Configure, Request, make_flow
from unit.stack.registry import Registry

PREFIX = "registry_proxy_"
CONTENT = b"layer" * 1000


def entry(registry: str = "quay.io", client_ip: str = "192.0.2.1", *, sent_bytes: int = 10, **more: object) -> Entry:
    """Return a hit that was answered after 20 ms."""
    exchange = Exchange(
        RegistryName.parse(registry),
        "https",
        parse_endpoint("GET", f"/v2/a/blobs/{Digest.of(b'x')}"),
        RequestClass.BLOB_BY_DIGEST,
        cache_status=CacheStatus.HIT,
        answered_at_s=100.02,
    )
    fields: dict[str, object] = {"status": 200, "exchange": exchange, "error": None, **more}
    return Entry(
        method="GET",
        target="/",
        host=registry,
        sent_bytes=sent_bytes,
        client_ip=client_ip,
        user_agent="",
        upstream=UpstreamPart(registry),
        began_s=100.0,
        **fields,  # type: ignore[arg-type]
    )


async def values(metrics: Metrics) -> Mapping[tuple[str, ...], float]:
    """Return all samples by name, without the prefix, and label values in the order of the labels' names."""
    text = (await metrics.text()).decode()
    return {
        (sample.name.removeprefix(PREFIX), *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics(core: Core) -> Metrics:
    """Return the metrics of a running core."""
    return Metrics(core, Certificates())


class TestRequests:
    async def test_a_request_is_counted_by_registry_class_and_status(self, metrics: Metrics) -> None:
        """And its bytes; the time is that of the head, not of the body."""
        for _ in range(3):
            metrics.count(entry())
        metrics.count(entry("ghcr.io", status=None, sent_bytes=5))

        seen = await values(metrics)
        assert seen["requests_total", "HIT", "quay.io", "blob-by-digest"] == 3
        assert seen["responses_total", "quay.io", "200"] == 3
        assert seen["responses_total", "ghcr.io", "none"] == 1
        assert seen["sent_bytes_total", "HIT", "quay.io"] == 30
        assert seen["time_to_first_byte_seconds_bucket", "HIT", "0.025"] == 4
        assert seen["time_to_first_byte_seconds_bucket", "HIT", "0.01"] == 0

    async def test_names_that_clients_make_up_do_not_become_labels(
        self, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wildcard matches any number of them."""
        monkeypatch.setattr(metrics_module, "MOST_REGISTRIES", 2)
        for number in range(5):
            metrics.count(entry(f"r{number}.example"))

        seen = await values(metrics)
        assert {name[1] for name in seen if name[0] == "responses_total"} == {"r0.example", "r1.example", "other"}

    async def test_clients_are_counted_and_not_named(self, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each address once, for five minutes."""
        now_s = 100.0
        monkeypatch.setattr(metrics_module, "time", SimpleNamespace(time=lambda: now_s))
        for client in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            metrics.count(entry(client_ip=client))

        assert (await values(metrics))["active_clients",] == 2
        assert "192.0.2" not in (await metrics.text()).decode()
        now_s = 100.0 + metrics_module.CLIENT_WINDOW_S
        assert (await values(metrics))["active_clients",] == 0


class TestRooms:
    async def test_a_download_is_counted_once(
        self, metrics: Metrics, core: Core, registry: Registry, ask: Request
    ) -> None:
        """What came, what was stored, and for how long; a second look adds nothing."""
        digest = registry.blob(CONTENT)
        flow = ask(core, f"/v2/library/alpine/blobs/{digest}")
        await BlobCache(core).request(flow)
        for _ in range(500):
            if core.store.holds(digest) and not core.store.running_ingests():
                break
            await asyncio.sleep(0.01)
        for _ in range(2):
            seen = await values(metrics)

        assert seen["ingests_total", "stored"] == 1
        assert seen["ingested_bytes_total",] == len(CONTENT)
        assert seen["fetched_bytes_total", registry.name] == len(CONTENT)
        assert seen["ingest_duration_seconds_count",] == 1
        assert seen["ingests_in_progress",] == 0
        assert seen["cache_bytes", "content"] >= len(CONTENT)
        assert seen["cache_entries",] == 1
        assert 0 <= seen["cache_oldest_access_age_seconds",] < 60

    async def test_an_upstream_that_gives_no_answer_is_seen(self, configure: Configure) -> None:
        """Its failures by kind, and its breaker, which is 0 again when it is back."""
        core = configure(REGISTRIES="http://127.0.0.1:1")
        metrics = Metrics(core, Certificates())
        request = UpstreamRequest("GET", Url.parse("http://127.0.0.1:1/v2/"), ())
        with pytest.raises(UpstreamUnavailable):
            await core.upstream.ask(request, 100)

        seen = await values(metrics)
        assert seen["upstream_failures_total", "connection", "127.0.0.1:1"] == 1
        assert seen["upstream_breaker_state", "http://127.0.0.1:1"] == 2
        core.upstream.circuits.answered("http://127.0.0.1:1", 200, is_probe=True)
        assert (await values(metrics))["upstream_breaker_state", "http://127.0.0.1:1"] == 0

    async def test_when_certificates_end(self, metrics: Metrics, core: Core) -> None:
        """The CA's end is known from the start."""
        expected = core.authority.certificate.not_valid_after_utc.timestamp()
        assert (await values(metrics))["ca_expiry_timestamp_seconds",] == expected

    async def test_before_the_start_there_are_no_figures(self) -> None:
        """And no error: Prometheus may be quicker."""
        assert ("cache_bytes", "content") not in await values(Metrics(Core(), Certificates()))


@pytest.mark.parametrize(
    ("method", "path", "door", "is_answered"),
    [
        ("GET", "/metrics", Door.OWN, True),
        ("GET", "/metrics?x=1", Door.OWN, True),
        ("GET", "/metrics/x", Door.OWN, False),
        ("POST", "/metrics", Door.OWN, False),
        ("GET", "/metrics", Door.TUNNEL, False),
        ("GET", "/metrics", Door.FORWARD, False),
    ],
)
async def test_the_page(metrics: Metrics, method: str, path: str, door: Door, is_answered: bool) -> None:
    """Only at the proxy's own address."""
    flow = make_flow(method, "proxy", 3128, path, door=door)
    await MetricsPage(metrics).requestheaders(flow)
    assert (flow.response is not None) is is_answered
    if flow.response is not None:
        assert isinstance(flow.response, http.Response)
        assert flow.response.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"registry_proxy_requests_total" in (flow.response.raw_content or b"")
