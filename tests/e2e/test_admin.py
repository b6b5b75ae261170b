"""The admin API on the real proxy: who may use it, and what purge, pins and verification do to real pulls."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.http_client import Response
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

API = "/_proxy/api/v1"
TOKEN = "sixteen-characters-or-more"
REGISTRY = "noauth.lab.test"
LIMIT_S = 60.0
ACCEPT = {"Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"}


def ask(proxy: Proxy, method: str, path: str, status: int = 200, **query: str) -> Any:
    """Return the JSON of an answer with this status."""
    parts = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    answer = proxy.request(method, f"{API}{path}" + (f"?{parts}" if parts else ""))
    assert answer.status == status, answer.body
    assert answer.header("Content-Type") == "application/json"
    return json.loads(answer.body)


def until[T](look: Callable[[], T], is_there: Callable[[T], bool]) -> T:
    """Look again and again; AssertionError with what was seen last."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_there(seen := look()):
        assert time.monotonic() < deadline_s, seen
        time.sleep(0.05)
    return seen


def pull(proxy: Proxy, name: str, tag: str = "latest") -> list[Response]:
    """Pull as a client does: the tag, then what it names; returns the answers."""
    client = proxy.client()
    manifest = client.get(f"https://{REGISTRY}/v2/{name}/manifests/{tag}", ACCEPT)
    assert manifest.status == 200
    document = json.loads(manifest.body)
    digests = [descriptor["digest"] for descriptor in (document["config"], *document["layers"])]
    answers = [manifest, *(client.get(f"https://{REGISTRY}/v2/{name}/blobs/{digest}") for digest in digests)]
    assert {answer.status for answer in answers} == {200}
    until(lambda: ask(proxy, "GET", "/status")["ingests"], lambda ingests: not ingests)
    return answers


def statuses(answers: list[Response]) -> list[str]:
    """Return what the cache did for each."""
    return [answer.header("X-Docker-Registry-Proxy-Cache-Upstream-Status") for answer in answers]


class TestWhoMayComeIn:
    def test_this_machine_may_without_a_token(self, proxy: Proxy) -> None:
        """Loopback, by address or as localhost."""
        status = ask(proxy, "GET", "/status")

        assert status["cache"]["content_bytes"] == 0
        assert proxy.request("GET", f"{API}/status", {"Host": f"localhost:{proxy.address.port}"}).status == 200

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            pytest.param({"Host": "evil.example:3128"}, 421, id="a name that was turned to this address"),
            pytest.param({"X-Forwarded-For": "192.0.2.1"}, 403, id="behind a reverse proxy"),
            pytest.param({"Origin": "https://evil.example"}, 403, id="another site's page"),
            pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="another site's link"),
        ],
    )
    def test_who_is_not_of_this_machine_may_not(self, proxy: Proxy, headers: dict[str, str], status: int) -> None:
        """What a page in a browser, or a reverse proxy, can do with this machine's address is refused."""
        answer = proxy.request("GET", f"{API}/status", headers)

        assert (answer.status, answer.header("Content-Type")) == (status, "application/json")
        assert json.loads(answer.body).keys() == {"error"}

    def test_the_token_is_what_counts(self, start_proxy: StartProxy) -> None:
        """With one set, nothing else opens; a name has to be listed."""
        proxy = start_proxy({"ADMIN_TOKEN": TOKEN, "ADMIN_HOSTS": "proxy.example"})

        def status(**headers: str) -> int:
            return proxy.request("GET", f"{API}/status", headers).status

        assert status() == 401
        assert status(Authorization=f"Bearer {TOKEN}x") == 401
        assert status(Authorization=f"Basic {TOKEN}") == 401
        assert status(Authorization=f"Bearer {TOKEN}") == 200
        assert status(Authorization=f"Bearer {TOKEN}", Host="Proxy.Example:3128") == 200
        assert status(Authorization=f"Bearer {TOKEN}", Host="evil.example") == 421
        assert TOKEN not in proxy.log

    def test_it_is_not_reached_through_the_proxy(self, proxy: Proxy) -> None:
        """Neither by CONNECT to the proxy itself, nor in absolute form, nor by any intercepted host's path."""
        with pytest.raises(OSError, match="403"):
            proxy.client().get(f"https://127.0.0.1:{proxy.address.port}{API}/status")
        absolute = proxy.request("GET", f"http://127.0.0.1:{proxy.address.port}{API}/status")
        assert absolute.status >= 400
        assert b"uptime_s" not in absolute.body
        inside = proxy.client().get(f"https://{REGISTRY}{API}/status")
        assert b"uptime_s" not in inside.body

    def test_what_is_not_there_is_json_too(self, proxy: Proxy) -> None:
        """Errors name the thing."""
        assert "openapi.json" in ask(proxy, "GET", "/nothing", 404)["error"]
        assert "POST" in ask(proxy, "GET", "/purge", 405)["error"]
        assert "older" in ask(proxy, "POST", "/purge", 400, older="1d")["error"]
        assert "target" in ask(proxy, "PUT", "/pins", 400)["error"]
        assert "none of" in ask(proxy, "GET", "/images", 400, target="UPPER/case:x")["error"]


class TestImages:
    def test_an_image_is_listed_and_explained(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """`ls` knows tag, digest, size and age; `why` knows a request by the id that its answer had."""
        digest = lab.push(build_image(), "team/explained", "1.0")
        answers = pull(proxy, "team/explained", "1.0")

        (image,) = ask(proxy, "GET", "/images", target=f"{REGISTRY}/team/explained")["images"]
        assert (image["image"], image["digest"]) == (f"{REGISTRY}/team/explained:1.0", digest)
        assert image["complete"]
        assert image["size_bytes"] >= 200_000
        assert not image["pinned"]
        request_id = answers[-1].header("X-Registry-Proxy-Request-Id")
        why = ask(proxy, "GET", "/why", subject=request_id)
        assert why["request"]["request_id"] == request_id
        assert why["request"]["cache_status"] == "MISS"
        assert why["content"]["needed_by"] == [image["image"]]
        explained = ask(proxy, "GET", "/why", subject=image["image"])
        assert explained["images"][0]["upstream"] == f"https://{REGISTRY}"
        assert explained["images"][0]["missing"] == []
        assert explained["requests"][0]["cache_status"] == "MISS"
        lines = [json.loads(line) for line in proxy.log.splitlines() if line.startswith("{")]
        assert lines[-1]["request_id"] == request_id
        assert list(lines[-1])[-1] == "request_id"
        assert "is not, or no longer" in ask(proxy, "GET", "/why", 404, subject="Never There")["error"]

    def test_an_image_that_was_asked_for_by_digest_is_known(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage
    ) -> None:
        """Kubernetes often pins digests: no tag was ever asked for, and the image has its name all the same."""
        digest = lab.push(build_image(), "team/pinned")
        pull(proxy, "team/pinned", digest)

        (image,) = ask(proxy, "GET", "/images")["images"]
        assert (image["image"], image["tag"]) == (f"{REGISTRY}/team/pinned@{digest}", None)
        assert image["complete"]
        layer = ask(proxy, "POST", "/purge", target=digest, dry_run="true")["contents"][0]
        assert ask(proxy, "POST", "/purge", target=layer)["contents"] == [layer]
        assert len(ask(proxy, "POST", "/purge", target=digest)["contents"]) == 3
        assert ask(proxy, "GET", "/images")["images"] == []

    def test_whose_login_opened_an_image_is_told(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """By its name; the password is nowhere."""
        proxy = start_proxy({"AUTH_REGISTRIES": "basic.lab.test:alice:secret"})
        lab.push(build_image(), "team/private")
        assert lab.basic.address
        url = "https://basic.lab.test/v2/team/private/manifests/latest"
        assert proxy.client().get(url, ACCEPT).status == 200

        why = ask(proxy, "GET", "/why", subject="basic.lab.test/team/private:latest")
        assert why["images"][0]["credential"] == "operator:alice@basic.lab.test"
        assert len(why["images"][0]["missing"]) == 3
        assert "secret" not in json.dumps(why)

    def test_what_is_pulled_is_seen_live(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """`tail` asks for what came after a number, and waits for it."""
        lab.push(build_image(), "team/tailed")
        newest = ask(proxy, "GET", "/requests")["newest"]
        pull(proxy, "team/tailed")

        seen = ask(proxy, "GET", "/requests", after=str(newest), wait="30s")
        assert {request["repository"] for request in seen["requests"]} == {"team/tailed"}
        assert ask(proxy, "GET", "/status")["requests"]["by_cache_status"]["MISS"] == 4


class TestPurge:
    def test_a_purged_image_is_fetched_anew(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """A dry run changes nothing; the real one removes tag, manifest and blobs."""
        digest = lab.push(build_image(), "team/purged")
        pull(proxy, "team/purged")
        assert set(statuses(pull(proxy, "team/purged"))[1:]) == {"HIT"}
        target = f"{REGISTRY}/team/purged:latest"

        dry = ask(proxy, "POST", "/purge", target=target, dry_run="true")
        assert (dry["images"], len(dry["contents"])) == ([target], 4)
        assert set(statuses(pull(proxy, "team/purged"))[1:]) == {"HIT"}
        gone = ask(proxy, "POST", "/purge", target=target)
        assert {**gone, "dry_run": True} == dry
        assert gone["freed_bytes"] >= 200_000
        assert ask(proxy, "GET", "/images")["images"] == []
        assert not list(proxy.cache_directory.glob(f"content/*/*/{digest.removeprefix('sha256:')}"))
        assert set(statuses(pull(proxy, "team/purged"))) == {"MISS"}

    def test_what_another_image_needs_stays(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Two tags of one image: its content goes with the last of them."""
        image = build_image()
        for tag in ("one", "two"):
            lab.push(image, "team/shared", tag)
            pull(proxy, "team/shared", tag)

        first = ask(proxy, "POST", "/purge", target=f"{REGISTRY}/team/shared:one")
        assert (len(first["images"]), first["contents"]) == (1, [])
        last = ask(proxy, "POST", "/purge", target=REGISTRY)
        assert len(last["contents"]) == 4
        assert ask(proxy, "GET", "/status")["cache"]["content_bytes"] == 0

    def test_what_is_pinned_stays(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Purging says so; unpinned it goes. Pins outlive a restart."""
        lab.push(build_image(), "team/kept")
        pull(proxy, "team/kept")
        target = f"{REGISTRY}/team/kept:latest"
        assert ask(proxy, "PUT", "/pins", target=target)["stored"] == 4
        proxy.restart()

        kept = ask(proxy, "POST", "/purge", older_than="0")
        assert (kept["contents"], kept["pinned"]) == ([], [target])
        assert [pin["target"] for pin in ask(proxy, "GET", "/pins")["pins"]] == [target]
        assert ask(proxy, "DELETE", "/pins", target=target)["pins"] == []
        assert "not pinned" in ask(proxy, "DELETE", "/pins", 404, target=target)["error"]
        assert len(ask(proxy, "POST", "/purge", older_than="0")["contents"]) == 4


class TestPins:
    def test_pinned_content_survives_eviction(self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
        """The cap is for two images; the pinned one stays, although it is the least recently used."""
        proxy = start_proxy({"CACHE_MAX_SIZE": "3m", "CACHE_MIN_FREE": "0"})
        for number in range(5):
            name = f"team/full-{number}"
            lab.push(build_image(name, layers=1, layer_bytes=1_000_000), name)
            pull(proxy, name)
            if number == 0:
                ask(proxy, "PUT", "/pins", target=f"{REGISTRY}/{name}")

        complete = {image["repository"] for image in ask(proxy, "GET", "/images")["images"] if image["complete"]}
        assert {"team/full-0", "team/full-4"} <= complete
        assert "team/full-1" not in complete
        assert set(statuses(pull(proxy, "team/full-0"))[1:]) == {"HIT"}


class TestVerify:
    def test_a_flipped_byte_is_found_and_fetched_anew(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """What does not hash to its name is removed and named; everything else stays."""
        lab.push(build_image(), "team/broken")
        answers = pull(proxy, "team/broken")
        broken = answers[-1].header("Docker-Content-Digest")
        (path,) = proxy.cache_directory.glob(f"content/*/*/{broken.removeprefix('sha256:')}")
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)

        ask(proxy, "POST", "/verification")
        done = until(lambda: ask(proxy, "GET", "/verification"), lambda seen: seen["state"] != "running")
        assert (done["state"], done["checked"], done["removed"]) == ("done", 4, [broken])
        again = pull(proxy, "team/broken")
        assert statuses(again)[1:] == ["HIT", "HIT", "MISS"]
        assert again[-1].body == answers[-1].body
