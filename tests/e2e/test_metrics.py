"""`/metrics` of a running proxy after real traffic: the numbers are the upstream's, and nothing is missing.

One proxy meets everything that is counted; several processes count together.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lab.addresses import free_port
from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.image import MANIFEST
from lab.lab import HUB, Lab
from lab.monitoring import SCRAPE_LABELS, questions
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from regproxy.oci.digest import Digest

pytestmark = pytest.mark.e2e

ACCEPT = {"Accept": MANIFEST}
LIMIT_S = 30.0


def families(proxy: Proxy) -> Mapping[str, Metric]:
    """Return all metrics by name, as Prometheus reads them."""
    answer = proxy.request("GET", "/metrics")
    assert answer.status == 200
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


def value(proxy: Proxy, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    samples = (sample for family in families(proxy).values() for sample in family.samples)
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.1)


def manifest(body: bytes) -> Reply:
    return Reply(body, headers={"Content-Type": MANIFEST, "Docker-Content-Digest": str(Digest.of(body))})


def meet_everything(proxy: Proxy, origin: Origin, limited: Origin, tmp_path: Path) -> None:
    """Have a quota told, a tag move, vanish and go stale, content that is wrong, a 429, an upstream that is away."""
    proxy.skopeo().pull(f"{HUB}/metrics/all:latest", tmp_path / "pulled")
    client = proxy.client()

    def status(path: str, name: str = origin.name) -> int:
        return client.get(f"https://{name}/v2/a/b/{path}", ACCEPT).status

    promised = Digest.of(b"promised")
    wrong = Reply(b"{}", headers={"Content-Type": MANIFEST, "Docker-Content-Digest": str(promised)})
    origin.serve("/v2/a/b/manifests/moves", manifest(b'{"schemaVersion":2}'), manifest(b'{"schemaVersion": 2}'))
    origin.serve("/v2/a/b/manifests/goes", manifest(b'{"schemaVersion":2}'), Reply(b"{}", 404))
    origin.serve("/v2/a/b/manifests/wrong", wrong)
    origin.serve(f"/v2/a/b/blobs/{promised}", Reply(b"something else"))
    assert [status(f"manifests/{tag}") for tag in ("moves", "moves", "goes", "goes", "wrong")] == [
        200,
        200,
        200,
        404,
        502,
    ]
    assert status(f"blobs/{promised}") == 502
    limited.serve("/v2/a/b/manifests/1", Reply(b"{}", 429, {"Retry-After": "3000"}))
    assert status("manifests/1", limited.name) == 429
    origin.stop()
    assert status("manifests/moves") == 200
    assert client.get(f"https://{HUB}/v2/private/all/manifests/1", ACCEPT).status == 401


def missing(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield each metric, label and value that the dashboard and the alerts name and that is not there."""
    for question in questions():
        labels = set(SCRAPE_LABELS)
        for name, matchers in question.selectors():
            found = [sample.labels for sample in samples if sample.name == name]
            labels.update(*found)
            if not found:
                yield f"{question.where}: {name}"
            for label, operator, wanted in matchers:
                known = {each.get(label) for each in found}
                if label not in SCRAPE_LABELS and (None in known or (operator == "=" and wanted not in known)):
                    yield f"{question.where}: {name}{{{label}{operator}{wanted!r}}}"
        yield from (f"{question.where}: label {label}" for label in question.result_labels() - labels)


def test_everything_that_is_asked_for_is_there(
    lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin, build_image: MakeImage, tmp_path: Path
) -> None:
    """And nobody is named: no image, tag or client, for whoever may use the proxy may read it."""
    lab.push(build_image(), "metrics/all")
    assert lab.hub.name == HUB
    nobody = f"s3://bucket?endpoint=http://127.0.0.1:{free_port()}&region=x"
    proxy = start_proxy({"STORE_URL": nobody, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "0123456789abcdef"})
    meet_everything(proxy, start_origin("origin.lab.test"), start_origin("origin2.lab.test"), tmp_path)
    wait_for(lambda: value(proxy, "registry_proxy_ingests_total", outcome="wrong_digest") == 1)

    assert not list(missing([sample for family in families(proxy).values() for sample in family.samples]))
    text = proxy.request("GET", "/metrics").body.decode()
    for name in ("metrics/all", "a/b", "moves", "sha256:", '"127.0.0.1"'):
        assert name not in text


def test_numbers_are_the_upstreams(lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path) -> None:
    """Of a cold and a warm pull by a real client: bytes from upstream once, to clients twice."""
    image = build_image(layers=3)
    lab.push(image, "metrics/counted", to=lab.other)
    asked = lab.other.log.mark()
    for number in range(2):
        proxy.skopeo().pull(f"{lab.other.name}/metrics/counted:latest", tmp_path / str(number))
    bodies_bytes = sum(each.body_bytes for each in asked.requests(method="GET", status=200, path_contains="/blobs/"))
    name = lab.other.name
    wait_for(lambda: value(proxy, "registry_proxy_ingests_total", outcome="stored") == len(image.blobs))

    def sent(status: str) -> float:
        return value(proxy, "registry_proxy_requests_total", registry=name, cache_status=status)

    assert value(proxy, "registry_proxy_ingested_bytes_total") == bodies_bytes
    assert bodies_bytes <= value(proxy, "registry_proxy_fetched_bytes_total", registry=name) < bodies_bytes + 10_000
    assert value(proxy, "registry_proxy_sent_bytes_total", registry=name) >= 2 * bodies_bytes
    assert sent("MISS") == len(image.blobs) + 1
    assert sent("HIT") >= len(image.blobs)
    assert sent("REVALIDATED") == 1
    assert value(proxy, "registry_proxy_active_clients") == 1
    assert value(proxy, "registry_proxy_upstream_failures_total") == 0


def test_processes_count_together(start_proxy: StartProxy, start_origin: StartOrigin, tmp_path: Path) -> None:
    """Whichever is asked answers for both; what is counted stays when one ends, what is under way does not."""
    origin = start_origin("origin.lab.test")
    origin.serve("/v2/a/b/manifests/1", manifest(b'{"schemaVersion":2}'))
    shared = tmp_path / "shared"
    first, second = (
        # Proxies of one process each: workers of one proxy know each other's clients.
        start_proxy({"PROMETHEUS_MULTIPROC_DIR": str(shared), "WORKERS": "1"})
        for _ in range(2)
    )
    for proxy, times in ((first, 2), (second, 3)):
        for _ in range(times):
            assert proxy.client().get(f"https://{origin.name}/v2/a/b/manifests/1", ACCEPT).status == 200

    for proxy in (first, second):
        wait_for(lambda asked=proxy: value(asked, "registry_proxy_requests_total", registry=origin.name) == 5)  # type: ignore[misc]
        # Each has a client of its own, which is the same machine here.
        wait_for(lambda asked=proxy: value(asked, "registry_proxy_active_clients") == 2)  # type: ignore[misc]
        assert value(proxy, "registry_proxy_fetched_bytes_total", registry=origin.name) == 2 * 19
        assert value(proxy, "registry_proxy_build_info") == 1
    second.stop()
    assert value(first, "registry_proxy_requests_total", registry=origin.name) == 5
    assert value(first, "registry_proxy_active_clients") == 1
