"""Rate limits: a warm proxy spends no pull, a registry that has had enough is left alone, and clients still pull.

Real registries behind nginx, which refuses and tells quotas; a scripted origin where the order of answers counts.
"""

import base64
import hashlib
import json
import time
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.image import MANIFEST
from lab.lab import HUB, Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e

CACHE_STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
LONG = ("Retry-After", "3000")
"""Longer than any test takes, however loaded the machine."""


def hub_quota(remaining: int) -> tuple[tuple[str, str], ...]:
    """Return Docker Hub's fields."""
    return (
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", f"{remaining};w=21600"),
        ("docker-ratelimit-source", "192.0.2.1"),
    )


def basic(user: str) -> dict[str, str]:
    return {"Accept": MANIFEST, "Authorization": "Basic " + base64.b64encode(f"{user}:x".encode()).decode()}


def test_a_warm_proxy_spends_no_pull_of_docker_hubs(
    lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """A tag that is never fresh, pulled again and again by a real client: Docker Hub sees HEADs, which cost nothing."""
    lab.push(build_image(architectures=("amd64", "arm64")), "library/warm")
    reference = f"{lab.hub.name}/library/warm:latest"
    proxy.skopeo("cold").pull(reference, tmp_path / "cold", all_platforms=True)
    read = lab.hub.log.mark()
    for number in range(5):
        proxy.skopeo(f"warm-{number}").pull(reference, tmp_path / f"warm-{number}", all_platforms=True)
        assert hash_files(tmp_path / f"warm-{number}") == hash_files(tmp_path / "cold")
    assert read.count(method="GET", path_contains="/manifests/") == 0
    assert read.count(method="GET", path_contains="/blobs/") == 0
    assert read.count(method="HEAD", path_contains="/manifests/latest", status=200) == 5


class TestTooManyRequests:
    @pytest.mark.parametrize("fields", [(LONG,), ()], ids=["told for how long", "not told"])
    def test_a_pulled_image_still_pulls(
        self,
        lab: Lab,
        proxy: Proxy,
        build_image: MakeImage,
        tmp_path: Path,
        fields: tuple[tuple[str, str], ...],
    ) -> None:
        """With the registry answering 429 to everything a real client gets the same image again."""
        lab.push(build_image(), "limits/pulled", to=lab.other)
        reference = f"{lab.other.name}/limits/pulled:latest"
        proxy.skopeo("before").pull(reference, tmp_path / "before")
        with lab.other.refusing(429, *fields):
            asked = lab.other.log.mark()
            for number in range(2):
                proxy.skopeo(f"during-{number}").pull(reference, tmp_path / f"during-{number}")
                assert hash_files(tmp_path / f"during-{number}") == hash_files(tmp_path / "before")
            if fields:
                assert asked.count() == 1
        assert "429" in proxy.log

    def test_an_image_that_is_not_stored_is_refused_without_asking_again(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage
    ) -> None:
        """The client is told when to come back, in the words of registries."""
        lab.push(build_image(), "limits/cold", to=lab.other)
        url = f"https://{lab.other.name}/v2/limits/cold/manifests/latest"
        with lab.other.refusing(429, LONG):
            asked, client = lab.other.log.mark(), proxy.client()
            assert client.get(url, {"Accept": MANIFEST}).status == 429
            again = client.get(url, {"Accept": MANIFEST})
            assert asked.count() == 1
        assert again.status == 429
        assert 2000 < int(again.header("Retry-After")) <= 3000
        assert json.loads(again.body)["errors"][0]["code"] == "TOOMANYREQUESTS"

    def test_a_blob_is_refused_the_same_way(self, proxy: Proxy, origin: Origin) -> None:
        """First in the registry's words, then in ours, with what is left of the time; nothing more is asked."""
        path = f"/v2/limits/blob/blobs/sha256:{'1' * 64}"
        origin.serve(path, Reply(b"busy", 429, dict([LONG])), Reply(b"content"))
        first, again = (proxy.client().get(f"https://{origin.name}{path}") for _ in range(2))
        assert (first.status, first.body, first.header("Retry-After")) == (429, b"busy", "3000")
        assert (again.status, json.loads(again.body)["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
        assert 2000 < int(again.header("Retry-After")) <= 3000
        assert origin.log.count(path_contains=path) == 1

    def test_it_is_asked_again_when_the_time_is_over(self, proxy: Proxy, origin: Origin) -> None:
        """Within it the stored answer is served at once, then the registry's."""
        path = "/v2/limits/over/manifests/latest"
        body = b'{"schemaVersion": 2}'
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        good = Reply(body, headers={"Content-Type": MANIFEST, "Docker-Content-Digest": digest})
        url, client = f"https://{origin.name}{path}", proxy.client()
        origin.serve(path, good)
        client.get(url, {"Accept": MANIFEST})
        origin.serve(path, Reply(b"busy", 429, {"Retry-After": "1"}), good)
        answer = client.get(url, {"Accept": MANIFEST})
        assert (answer.body, answer.header(CACHE_STATUS)) == (good.body, "STALE")
        assert answer.header("Warning").startswith("299 ")
        while answer.header(CACHE_STATUS) == "STALE":
            time.sleep(0.1)
            answer = client.get(url, {"Accept": MANIFEST})
        assert answer.header(CACHE_STATUS) == "REVALIDATED"
        # good, 429, good: none in between
        assert origin.log.count(path_contains=path) == 3

    def test_another_login_is_not_held_up(self, proxy: Proxy, origin: Origin) -> None:
        """A client's own login is an account of its own, and no text of it is in the log."""
        path = "/v2/limits/logins/manifests/latest"
        good = Reply(b'{"schemaVersion": 2}', headers={"Content-Type": MANIFEST})
        url, client = f"https://{origin.name}{path}", proxy.client()
        origin.serve(path, Reply(b"busy", 429, dict([LONG])), good)
        assert [client.get(url, basic("ann")).status for _ in range(2)] == [429, 429]
        assert client.get(url, basic("bob")).status == 200
        assert origin.log.count(path_contains=path) == 2
        assert basic("ann")["Authorization"].removeprefix("Basic ") not in proxy.log

    def test_a_token_server_is_left_alone_too(self, start_proxy: StartProxy, start_origin: StartOrigin) -> None:
        """Its 429 is the login's, whichever repository is asked for; nothing is stored, so the client gets it."""
        registry, server = start_origin("origin.lab.test"), start_origin("edge.lab.test")
        challenge = {"WWW-Authenticate": f'Bearer realm="https://{server.name}/token",service="x"'}
        for name in ("one", "two"):
            registry.serve(f"/v2/limits/{name}/manifests/latest", Reply(b"{}", 401, challenge))
        server.serve("/token", Reply(b"busy", 429, dict([LONG])))
        client = start_proxy({"AUTH_REGISTRIES": f"{registry.name}:{USERNAME}:{PASSWORD}"}).client()
        for name in ("one", "two", "one"):
            answer = client.get(f"https://{registry.name}/v2/limits/{name}/manifests/latest", {"Accept": MANIFEST})
            assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
            assert 2000 < int(answer.header("Retry-After")) <= 3000
        assert server.log.count() == 1


def test_a_low_quota_is_kept_for_what_is_not_stored(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """Docker Hub, real clients: a tag that has moved keeps its old content, a new image is pulled, one line says it."""
    old, new = build_image("old"), build_image("new")
    lab.push(old, "library/moving")
    reference = f"{lab.hub.name}/library/moving:latest"
    proxy = start_proxy({"AUTH_REGISTRIES": f"docker.io:{USERNAME}:{PASSWORD}"})
    proxy.skopeo("old").pull(reference, tmp_path / "old")
    lab.push(new, "library/moving")
    lab.push(build_image("other"), "library/other")
    with lab.hub.telling(*hub_quota(9)):
        read = lab.hub.log.mark()
        for number in range(2):
            proxy.skopeo(f"low-{number}").pull(reference, tmp_path / f"low-{number}")
            assert hash_files(tmp_path / f"low-{number}") == hash_files(tmp_path / "old")
        assert read.count(method="GET", path_contains="/manifests/") == 0
        proxy.skopeo("other").pull(f"{HUB}/library/other:latest", tmp_path / "other")
        assert read.count(method="GET", path_contains="/manifests/") == 1
    (line,) = [line for line in proxy.log.splitlines() if "is low, 9 of 100" in line]
    for word in (f"https://{HUB}", "21600 s"):
        assert word in line
    assert PASSWORD not in line
    proxy.skopeo("new").pull(reference, tmp_path / "new")
    assert hash_files(tmp_path / "new") != hash_files(tmp_path / "old")


class TestNotFound:
    def test_what_is_not_there_is_asked_for_once(self, lab: Lab, start_proxy: StartProxy, tmp_path: Path) -> None:
        """By real clients and bare ones, for a tag and for a blob; the registry's own words come from memory."""
        proxy = start_proxy({"NOT_FOUND_TIME": "60s"})
        asked, client = lab.other.log.mark(), proxy.client()
        for path in ("manifests/nosuch", f"blobs/sha256:{'0' * 64}"):
            url = f"https://{lab.other.name}/v2/limits/absent/{path}"
            first, again = (client.get(url, {"Accept": MANIFEST}) for _ in range(2))
            assert (first.status, again.status, again.body) == (404, 404, first.body)
            assert (first.header(CACHE_STATUS), again.header(CACHE_STATUS)) == ("MISS", "HIT")
            assert asked.count(path_contains=path) == 1
        for number in range(2):
            failed = proxy.skopeo(f"absent-{number}").pull(
                f"{lab.other.name}/limits/absent:other", tmp_path / "absent", check=False
            )
            assert "manifest unknown" in failed.stderr
        assert asked.count(path_contains="/manifests/other") == 1

    def test_a_push_through_the_proxy_is_there_at_once(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Pull (404), push, pull: what a build does."""
        proxy = start_proxy({"NOT_FOUND_TIME": "60s", "ALLOW_PUSH": "true"})
        reference, skopeo = f"{lab.other.name}/limits/pushed:latest", proxy.skopeo()
        assert skopeo.pull(reference, tmp_path / "before", check=False).returncode == 1
        skopeo.push(build_image(), reference)
        assert skopeo.pull(reference, tmp_path / "after").returncode == 0
