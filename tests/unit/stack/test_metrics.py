"""What is counted, under which labels, and that it is what happened."""

import asyncio
import math
import platform
import time
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from mitmproxy import http
from prometheus_client.parser import text_string_to_metric_families

from regproxy.engine.certificates import Certificates
from regproxy.engine.http_layer import Door
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import parse_endpoint
from regproxy.oci.names import Registry as RegistryName
from regproxy.origin.callers import ANONYMOUS, Caller, Callers
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.credentials import Credential
from regproxy.policy.redirects import Url
from regproxy.policy.tiers import RequestClass
from regproxy.stack import metric_families
from regproxy.stack import metrics as metrics_module
from regproxy.stack.access_log import Entry, UpstreamPart
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.metrics import Metrics
from regproxy.stack.metrics_page import MetricsPage
from regproxy.stack.version import VERSION
from unit.stack.conftest import Configure, Request, make_flow
from unit.stack.registry import OCI, Registry

PREFIX = "registry_proxy_"
CONTENT = b"layer" * 1000


def project_version() -> str:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])


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

    async def test_a_status_that_is_none_makes_no_label(self, metrics: Metrics) -> None:
        """A registry may send any number from 100 to 999."""
        for status in (200, 418, 299, 777):
            metrics.count(entry(status=status))

        seen = await values(metrics)
        assert {name[2]: value for name, value in seen.items() if name[0] == "responses_total"} == {
            "200": 1,
            "418": 1,
            "other": 2,
        }

    async def test_names_that_clients_make_up_do_not_become_labels(
        self, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wildcard matches any number of them."""
        monkeypatch.setattr(metric_families, "MOST_REGISTRIES", 2)
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

    async def test_a_blob_that_is_not_what_it_is_named_after(
        self, metrics: Metrics, core: Core, registry: Registry, ask: Request
    ) -> None:
        """Counted as such, by the download's outcome."""
        digest = Digest.of(b"what was promised")
        registry.contents[f"/v2/library/alpine/blobs/{digest}"] = (b"what came", "application/octet-stream")
        await BlobCache(core).request(ask(core, f"/v2/library/alpine/blobs/{digest}"))
        for _ in range(500):
            if core.store.activity.ended:
                break
            await asyncio.sleep(0.01)

        assert (await values(metrics))["ingests_total", "wrong_digest"] == 1

    async def test_a_manifest_that_is_not_what_it_is_announced_as(
        self, metrics: Metrics, core: Core, registry: Registry, ask: Request
    ) -> None:
        """Counted as an answer that nobody can use."""
        digest = Digest.of(b"what was promised")
        registry.contents[f"/v2/library/alpine/manifests/{digest}"] = (b"what came", OCI)
        await ManifestCache(core).request(ask(core, f"/v2/library/alpine/manifests/{digest}", Accept=OCI))

        assert (await values(metrics))["upstream_failures_total", "wrong_digest", registry.name] == 1

    async def test_tags_that_move_and_vanish(
        self, metrics: Metrics, core: Core, registry: Registry, ask: Request
    ) -> None:
        """By registry; the tag is in the log."""
        cache, path = ManifestCache(core), "/v2/library/alpine/manifests/3"
        for body in (b'{"n":1}', b'{"n":2}', b'{"n":3}'):
            registry.tag("3", body)
            await cache.request(ask(core, path, Accept=OCI))
        del registry.contents[path]
        await cache.request(ask(core, path, Accept=OCI))

        seen = await values(metrics)
        assert seen["tag_changes_total", "moved", registry.name] == 2
        assert seen["tag_changes_total", "vanished", registry.name] == 1

    async def test_quotas_by_account_and_never_by_client(self, metrics: Metrics, core: Core) -> None:
        """Of all clients' own logins one number stands, the least; when it is over nobody knows."""
        quotas, url = core.upstream.quotas, Url.parse("https://registry-1.docker.io/v2/a/manifests/1")

        def told(caller: Caller, remaining: int, **more: str) -> None:
            fields = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": f"{remaining};w=21600", **more}
            quotas.observe(url, "GET", caller, status=200, fields=fields, answered_by=url.origin)

        told(ANONYMOUS, 60)
        told(Callers.of_operator(Credential("registry-1.docker.io", None, "alice", "secret")), 150)
        for number, login in enumerate(("Bearer one", "Bearer two", "Bearer three")):
            told(Callers().of_client(login), 7 + number)

        seen = await values(metrics)
        left = {name[1:]: value for name, value in seen.items() if name[0] == "quota_remaining"}
        hub = "registry-1.docker.io"
        assert left == {("anonymous", hub): 60, ("alice", hub): 150, ("clients", hub): 7}
        assert seen["quota_limit", "alice", hub] == 100

        told(ANONYMOUS, 5, **{"ratelimit-reset": "0"})
        assert math.isnan((await values(metrics))["quota_remaining", "anonymous", hub])

    async def test_a_registry_that_is_left_alone(self, metrics: Metrics, core: Core) -> None:
        """For how long, as long as it lasts."""
        url = Url.parse("https://registry-1.docker.io/v2/a/manifests/1")
        core.upstream.quotas.observe(
            url, "GET", ANONYMOUS, status=429, fields={"Retry-After": "300"}, answered_by=url.origin
        )
        assert 200 < (await values(metrics))["quota_resting_seconds", "anonymous", "registry-1.docker.io"] <= 300

    async def test_what_runs_here(self, metrics: Metrics) -> None:
        """Version, mitmproxy's, and Python's own figures of the process."""
        seen = await values(metrics)
        assert seen["build_info", version("mitmproxy"), platform.python_version(), project_version()] == 1
        assert project_version() == VERSION
        assert seen["process_resident_memory_bytes",] > 1_000_000
        assert seen["start_time_seconds",] <= time.time()

    async def test_when_certificates_end(self, metrics: Metrics, core: Core) -> None:
        """The CA's end is known from the start."""
        expected = core.ca.authorities.signing.certificate.not_valid_after_utc.timestamp()
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
