"""A registry that fails: what has been pulled once still pulls, and what the registry decides is still obeyed."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.http_client import Client
from lab.image import MANIFEST
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.registry import Registry
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e

CACHE_STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
FRESH = {"ENABLE_MANIFEST_CACHE": "true"}
"""The tag latest is fresh for an hour."""


@contextmanager
def frozen(registry: Registry) -> Iterator[None]:
    """Let a registry take connections and never answer, as behind a firewall that has forgotten them."""
    registry._program.send(signal.SIGSTOP)
    try:
        yield
    finally:
        registry._program.send(signal.SIGCONT)


class TestStopped:
    @pytest.mark.parametrize("settings", [FRESH, {}], ids=["unexpired tag", "stale tag"])
    def test_a_pulled_image_still_pulls(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, settings: dict[str, str]
    ) -> None:
        """With the registry gone, a real client gets the same image again, from `/v2/` to the last blob."""
        lab.push(build_image(architectures=("amd64", "arm64")), "outage/pulled", to=lab.other)
        proxy = start_proxy(settings)
        reference = f"{lab.other.name}/outage/pulled:latest"
        proxy.skopeo("before").pull(reference, tmp_path / "before", all_platforms=True)
        with lab.other.stopped():
            proxy.skopeo("during").pull(reference, tmp_path / "during", all_platforms=True)
        assert hash_files(tmp_path / "during") == hash_files(tmp_path / "before")

    def test_it_still_pulls_after_a_restart_of_the_proxy(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The last good answers are on disk, not in memory."""
        lab.push(build_image(), "outage/restarted", to=lab.other)
        reference = f"{lab.other.name}/outage/restarted:latest"
        proxy.skopeo("before").pull(reference, tmp_path / "before")
        with lab.other.stopped():
            proxy.restart().skopeo("during").pull(reference, tmp_path / "during")
        assert hash_files(tmp_path / "during") == hash_files(tmp_path / "before")

    def test_a_stale_answer_says_so(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Client, header and log are told that the answer is stale, and the log why; the next good one is not."""
        image = build_image()
        lab.push(image, "outage/told", to=lab.other)
        path = "/v2/outage/told/manifests/latest"
        url, client = f"https://{lab.other.name}{path}", proxy.client()
        assert client.get(url, {"Accept": MANIFEST}).headers["Warning"] is None
        with lab.other.stopped():
            get, head = client.get(url, {"Accept": MANIFEST}), client.head(url, {"Accept": MANIFEST})
        assert (get.status, get.body, head.status) == (200, image.read(image.digest), 200)
        for answer in (get, head):
            assert answer.header("Warning").startswith('299 - "')
            assert answer.header(CACHE_STATUS) == "STALE"
        stale_get = access_log(proxy, path, least=2)[1]
        assert stale_get["upstream_cache_status"] == "STALE"
        assert lab.other.name in stale_get["error"]
        asked, deadline_s = 3, time.monotonic() + 60
        while (again := client.get(url, {"Accept": MANIFEST})).header(CACHE_STATUS) == "STALE":
            assert time.monotonic() < deadline_s, "the registry is back, and nobody finds it"
            asked += 1
            time.sleep(0.1)
        assert (again.headers["Warning"], again.header(CACHE_STATUS)) == (None, "REVALIDATED")
        assert access_log(proxy, path, least=asked + 1)[-1]["error"] == ""

    def test_what_was_never_pulled_is_an_error(self, lab: Lab, proxy: Proxy, tmp_path: Path) -> None:
        """Nothing is made up: the client is told which registry does not answer, and the log too."""
        path, client = "/v2/outage/unknown/manifests/latest", proxy.client()
        with lab.other.stopped():
            answer = client.get(f"https://{lab.other.name}{path}", {"Accept": MANIFEST})
            failed = proxy.skopeo().pull(f"{lab.other.name}/outage/unknown:latest", tmp_path / "pulled", check=False)
        assert answer.status == 502
        assert lab.other.name in json.loads(answer.body)["errors"][0]["message"]
        assert lab.other.name in access_log(proxy, path, least=1)[0]["error"]
        assert failed.returncode != 0

    def test_a_password_is_not_confirmed_in_an_outage(self, lab: Lab, proxy: Proxy) -> None:
        """`/v2/` with credentials is `docker login`: it fails while nobody can check them; without, it is answered."""
        url, client = f"https://{lab.other.name}/v2/", proxy.client()
        assert client.get(url).status == 200
        with lab.other.stopped():
            assert client.get(url).status == 200
            assert client.get(url, {"Authorization": "Basic YWxpY2U6c2VjcmV0"}).status == 503

    def test_a_front_without_its_registry_is_an_outage_too(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """A load balancer's 502 for every request does not stop a pull."""
        lab.push(build_image(), "outage/front", to=lab.other)
        reference = f"{lab.other.name}/outage/front:latest"
        proxy.skopeo("before").pull(reference, tmp_path / "before")
        lab.other.stop_backend()
        try:
            proxy.skopeo("during").pull(reference, tmp_path / "during")
        finally:
            lab.other.start()
        assert hash_files(tmp_path / "during") == hash_files(tmp_path / "before")


def test_a_registry_that_never_answers_is_waited_for_only_briefly(
    lab: Lab, proxy: Proxy, build_image: MakeImage
) -> None:
    """With a registry that takes connections and is silent, ping and stale tag come before any client gives up."""
    image = build_image()
    lab.push(image, "outage/silent", to=lab.other)
    url, client = f"https://{lab.other.name}/v2/", proxy.client()
    manifest_url = f"{url}outage/silent/manifests/latest"
    client.get(manifest_url, {"Accept": MANIFEST})
    with frozen(lab.other), ThreadPoolExecutor(2) as pool:
        # the client's own limit of 30 s is the shortest that real ones have
        ping = pool.submit(client.get, url)
        manifest = pool.submit(client.get, manifest_url, {"Accept": MANIFEST})
        assert ping.result().status == 200
        assert (manifest.result().body, manifest.result().header(CACHE_STATUS)) == (image.read(image.digest), "STALE")


@pytest.fixture(scope="module")
def client(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Yield a client of one proxy for all statuses; each test pulls its own good answer first."""
    lab.auth.start()  # a challenge is passed on only if its token server gives no better answer
    with lab.proxy(tmp_path_factory.mktemp("statuses"), {"NOT_FOUND_TIME": "0"}) as proxy:
        yield proxy.client()


class TestStatuses:
    URL = "https://origin.lab.test/v2/some/image/manifests/latest"
    PATH = "/v2/some/image/manifests/latest"
    GOOD = Reply(b'{"schemaVersion": 2}', headers={"Content-Type": MANIFEST})

    @pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
    def test_a_failure_of_the_registry_is_answered_with_the_last_good_manifest(
        self, client: Client, origin: Origin, status: int
    ) -> None:
        """Overload and breakdown are stale answers that say so, for GET and for HEAD."""
        origin.serve(self.PATH, self.GOOD)
        client.get(self.URL, {"Accept": MANIFEST})
        origin.serve(self.PATH, Reply(b"no", status, {"Retry-After": "30"}))
        mark = origin.log.mark()
        get, head = client.get(self.URL, {"Accept": MANIFEST}), client.head(self.URL, {"Accept": MANIFEST})
        assert [(answer.status, answer.header(CACHE_STATUS)) for answer in (get, head)] == [(200, "STALE")] * 2
        assert get.body == self.GOOD.body
        assert get.header("Warning").startswith('299 - "')
        assert {request.method for request in mark.requests()} == {"HEAD"}

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
    def test_a_decision_of_the_registry_is_passed_on(self, client: Client, origin: Origin, status: int) -> None:
        """An image that was deleted or closed does not live on: status, challenge and body are the registry's."""
        origin.serve(self.PATH, self.GOOD)
        client.get(self.URL, {"Accept": MANIFEST})
        fields = {"Content-Type": "application/json", "WWW-Authenticate": 'Bearer realm="https://auth.lab.test/token"'}
        refusal = Reply(b'{"errors":[{"code":"DENIED"}]}', status, fields)
        origin.serve(self.PATH, refusal)
        get, head = client.get(self.URL, {"Accept": MANIFEST}), client.head(self.URL, {"Accept": MANIFEST})
        assert (get.status, get.body, head.status) == (status, refusal.body, status)
        for answer in (get, head):
            assert answer.header("WWW-Authenticate") == fields["WWW-Authenticate"]
            assert answer.headers["Warning"] is None

    def test_a_failure_between_head_and_get_is_a_failure(self, client: Client, origin: Origin) -> None:
        """The tag has moved but its content is refused for now: the old one is served, then the new one."""
        moved = Reply(b'{"schemaVersion": 2, "moved": true}', headers={"Content-Type": MANIFEST})
        origin.serve(self.PATH, self.GOOD)
        client.get(self.URL, {"Accept": MANIFEST})
        origin.serve(self.PATH, moved, Reply(b"no", 503), moved)
        stale, good = client.get(self.URL, {"Accept": MANIFEST}), client.get(self.URL, {"Accept": MANIFEST})
        assert (stale.body, stale.header(CACHE_STATUS)) == (self.GOOD.body, "STALE")
        assert good.body == moved.body

    def test_a_cut_connection_is_an_outage(self, client: Client, origin: Origin) -> None:
        """A manifest whose body breaks off is not served; the last good one is."""
        moved = Reply(b'{"schemaVersion": 2, "cut": true}', headers={"Content-Type": MANIFEST}, cut_after_bytes=5)
        origin.serve(self.PATH, self.GOOD)
        client.get(self.URL, {"Accept": MANIFEST})
        origin.serve(self.PATH, moved)
        answer = client.get(self.URL, {"Accept": MANIFEST})
        assert (answer.body, answer.header(CACHE_STATUS)) == (self.GOOD.body, "STALE")

    def test_a_tag_that_the_registry_has_deleted_does_not_come_back(self, client: Client, origin: Origin) -> None:
        """After a 404 there is no last good answer any more, whatever fails later."""
        path = "/v2/some/deleted/manifests/latest"
        origin.serve(path, self.GOOD)
        assert client.get(f"https://{origin.name}{path}", {"Accept": MANIFEST}).status == 200
        origin.serve(path, Reply(b'{"errors":[]}', 404))
        assert client.get(f"https://{origin.name}{path}", {"Accept": MANIFEST}).status == 404
        origin.serve(path, Reply(b"busy", 503))

        assert client.get(f"https://{origin.name}{path}", {"Accept": MANIFEST}).status == 503

    def test_a_failure_without_a_last_good_answer_is_passed_on(self, client: Client, origin: Origin) -> None:
        """A client that nobody can help gets the registry's own status and when to come back."""
        origin.serve("/v2/some/new/manifests/latest", Reply(b"busy", 503, {"Retry-After": "30"}))
        answer = client.get("https://origin.lab.test/v2/some/new/manifests/latest", {"Accept": MANIFEST})
        assert (answer.status, answer.body, answer.header("Retry-After")) == (503, b"busy", "30")
