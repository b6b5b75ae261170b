"""Registries and token servers that are away: warm images still pull, nobody waits twice, no password is confirmed."""

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlencode

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import Client, Response
from lab.image import MANIFEST, Image, make_image
from lab.lab import HUB, Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.registry import PASSWORD, USERNAME
from lab.silent_server import SilentServer
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e

CACHE_STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
NAME = "origin.lab.test"
MANIFEST_URL = f"https://{NAME}/v2/warm/app/manifests/latest"
PROBE_INTERVAL_S = 2.0
OPENED = "what is stored is served without asking"
CLOSED = "answers again after"
ABSENT = "sha256:" + "a" * 64


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{USERNAME}:{password}".encode()).decode()}


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = 60) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.1)


def error_of(answer: Response) -> str:
    """Return the message of an OCI error."""
    (error,) = json.loads(answer.body)["errors"]
    return str(error["message"])


@contextmanager
def mute_name_server(address: str) -> Iterator[None]:
    """Take questions and answer none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        yield


@contextmanager
def away(how: str, lab: Lab, proxy: Proxy, origin: Origin, image: Image) -> Iterator[None]:
    """Take the registry away in one of many ways; the proxy is restarted where its names go too."""
    if how in {"no name", "no name server"}:
        host = lab.addresses["edge2.lab.test"].host
        resolvers = proxy.cache_directory.parent / "resolvers.conf"
        resolvers.write_text(f"resolver {host} ipv6=off;\n")
        proxy.settings |= {"RESOLVERS_FILE": str(resolvers), "UPSTREAM_MAPPINGS": ""}
        origin.stop()
        with mute_name_server(host) if how == "no name" else nullcontext():
            proxy.restart()
            yield
    elif how == "hangs":
        origin.stop()
        with SilentServer(origin.address):
            yield
    elif how == "refuses":
        origin.stop()
        yield
    else:
        for path in ("/v2/", "/v2/warm/app/manifests/latest", f"/v2/warm/app/manifests/{image.digest}"):
            origin.serve(path, Reply(b"no", int(how)))
        yield


@pytest.mark.parametrize("how", ["no name", "no name server", "refuses", "hangs", "503", "429"])
def test_a_warm_image_pulls(
    lab: Lab, start_proxy: StartProxy, origin: Origin, build_image: MakeImage, tmp_path: Path, how: str
) -> None:
    """With a real client, twice, however its registry is away."""
    image = build_image()
    origin.serve_image("warm/app", "latest", image)
    proxy = start_proxy()
    proxy.skopeo().pull(f"{NAME}/warm/app:latest", tmp_path / "before")
    with away(how, lab, proxy, origin, image):
        for turn in ("first", "second"):
            proxy.skopeo().pull(f"{NAME}/warm/app:latest", tmp_path / turn)
            assert hash_files(tmp_path / turn) == hash_files(tmp_path / "before")
    stale = [line for line in access_log(proxy, "/v2/warm/app/manifests/latest") if line["image"]][1:]
    assert {line["upstream_cache_status"] for line in stale} == {"STALE"}
    assert all(NAME in line["error"] for line in stale)


@pytest.fixture
def warm(start_proxy: StartProxy, origin: Origin, build_image: MakeImage) -> tuple[Proxy, Client, Image]:
    """Start a proxy that has the image's manifest, with tags that are never fresh."""
    image = build_image()
    origin.serve_image("warm/app", "latest", image)
    proxy = start_proxy()
    client = proxy.client()
    assert client.get(MANIFEST_URL, {"Accept": MANIFEST}).status == 200
    return proxy, client, image


class TestBreaker:
    def test_a_dead_registry_is_tried_once_and_found_when_it_is_back(
        self, warm: tuple[Proxy, Client, Image], origin: Origin
    ) -> None:
        """While it is away the clients open no connection to it, only a probe now and then does. It is said once."""
        proxy, client, image = warm
        origin.stop()
        with SilentServer(origin.address) as silent:
            first = client.get(MANIFEST_URL, {"Accept": MANIFEST})
            began_s = time.monotonic()
            others = [client.get(MANIFEST_URL, {"Accept": MANIFEST}) for _ in range(20)]
            pings = [client.get(f"https://{NAME}/v2/") for _ in range(20)]
            probes = (time.monotonic() - began_s) / PROBE_INTERVAL_S
            assert silent.connections <= 1 + probes
        for answer in (first, *others):
            assert (answer.body, answer.header(CACHE_STATUS)) == (image.read(image.digest), "STALE")
            assert answer.header("Warning").startswith('299 - "')
        assert {ping.status for ping in pings} == {200}
        assert "no answer since" in access_log(proxy, "/v2/warm/app/manifests/latest")[-1]["error"]

        origin.start()
        mark = origin.log.mark()
        wait_until(
            lambda: client.get(MANIFEST_URL, {"Accept": MANIFEST}).header(CACHE_STATUS) == "REVALIDATED", "it is back"
        )
        # The probe, and the question of the client that found it back.
        assert mark.count(method="HEAD") <= 3
        assert (proxy.log.count(OPENED), proxy.log.count(CLOSED)) == (1, 1)

    def test_a_cold_miss_finds_the_registry_back_at_once(
        self, warm: tuple[Proxy, Client, Image], origin: Origin
    ) -> None:
        """Many at a time: none of them fails because of what was a moment ago."""
        proxy, client, image = warm
        origin.stop()
        client.get(MANIFEST_URL, {"Accept": MANIFEST})
        assert OPENED in proxy.log
        origin.start()
        other = f"https://{NAME}/v2/warm/other/manifests/"
        for number in range(5):
            origin.serve(f"/v2/warm/other/manifests/{number}", Reply(b"{}", headers={"Content-Type": MANIFEST}))
        urls = [f"https://{NAME}/v2/warm/app/blobs/{digest}" for digest in image.blobs]
        urls += [f"{other}{number}" for number in range(5)]
        with ThreadPoolExecutor(len(urls)) as pool:
            answers = list(pool.map(lambda url: client.get(url, {"Accept": MANIFEST}), urls))
        assert {answer.status for answer in answers} == {200}
        assert CLOSED in proxy.log

    def test_a_cold_miss_in_an_outage_is_told_since_when(
        self, warm: tuple[Proxy, Client, Image], origin: Origin
    ) -> None:
        """And why, and what comes next, for manifests, blobs, and what goes through."""
        _, client, image = warm
        origin.stop()
        client.get(MANIFEST_URL, {"Accept": MANIFEST})
        missing = client.get(f"https://{NAME}/v2/warm/other/manifests/latest", {"Accept": MANIFEST})
        assert missing.status == 502
        assert f"https://{NAME} cannot be reached: Connection refused" in error_of(missing)
        tags = client.get(f"https://{NAME}/v2/warm/app/tags/list")
        assert tags.status == 502
        assert "Connect" in error_of(tags)
        blob = client.get(f"https://{NAME}/v2/warm/app/blobs/{next(iter(image.blobs))}")
        assert (blob.status, NAME in error_of(blob)) == (502, True)

    def test_a_dead_cdn_is_not_the_registry_s_outage(
        self, warm: tuple[Proxy, Client, Image], origin: Origin, lab: Lab
    ) -> None:
        """The registry goes on being asked."""
        proxy, client, image = warm
        target = {"Location": "https://edge.lab.test/blob"}
        path = f"/v2/warm/app/blobs/{next(iter(image.blobs))}"
        origin.serve(path, Reply(b"", 307, target))
        assert client.get(f"https://{NAME}{path}").status == 502
        assert f"https://edge.lab.test cannot be reached: Connection refused; {OPENED}" in proxy.log
        assert client.get(MANIFEST_URL, {"Accept": MANIFEST}).header(CACHE_STATUS) == "REVALIDATED"
        assert lab.addresses["edge.lab.test"]


TOKEN_URL = "https://auth.docker.io/token?"
PULL = urlencode({"service": "registry.docker.io", "scope": "repository:library/outage:pull"})
LOG_IN = urlencode({"service": "registry.docker.io", "account": USERNAME, "client_id": "docker"})


@pytest.fixture
def hub(lab: Lab) -> Iterator[Lab]:
    """Yield the lab with its Docker Hub; both servers run again afterwards."""
    assert lab.hub.address
    lab.auth.start()
    try:
        yield lab
    finally:
        lab.hub.start()
        lab.auth.start()


class TestTokenServer:
    def test_a_warm_image_pulls_without_the_token_server_and_without_both(
        self, hub: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Anonymously and with a login that was taken before: the challenge is kept, the token is ours."""
        hub.push(build_image(), "library/outage")
        proxy = start_proxy()
        logins: dict[str, str | None] = {"nobody": None, "alice": f"{USERNAME}:{PASSWORD}"}
        for who, login in logins.items():
            proxy.skopeo(who).pull(f"{HUB}/library/outage:latest", tmp_path / f"{who} before", credentials=login)
        for gone in (hub.auth.stop, hub.hub.stop_backend, hub.hub.stop):
            gone()
            for who, login in logins.items():
                target = tmp_path / f"{who} {gone.__qualname__}"
                proxy.skopeo(who).pull(f"{HUB}/library/outage:latest", target, credentials=login)
                assert hash_files(target) == hash_files(tmp_path / f"{who} before")
        challenge = proxy.client().get(f"https://{HUB}/v2/")
        assert (challenge.status, challenge.header("WWW-Authenticate")[:6]) == (401, "Bearer")

    def test_a_password_is_confirmed_only_if_it_was_before(self, hub: Lab, proxy: Proxy) -> None:
        """A wrong one, and one that nobody has seen, are told that they cannot be checked."""
        client = proxy.client()
        known = client.get(TOKEN_URL + LOG_IN, basic(PASSWORD))
        assert known.status == 200
        assert client.get(TOKEN_URL + LOG_IN, basic("wrong")).status == 401
        hub.auth.stop()
        for query in (LOG_IN, PULL):
            refused = client.get(TOKEN_URL + query, basic("wrong"))
            assert (refused.status, "cannot be checked now" in error_of(refused)) == (503, True)
            assert client.get(TOKEN_URL + query, basic(PASSWORD)).status == 200
        restarted = proxy.restart().client()
        assert restarted.get(TOKEN_URL + LOG_IN, basic(PASSWORD)).status == 503
        assert PASSWORD not in proxy.log

    def test_a_password_that_has_become_wrong_is_not_confirmed(self, proxy: Proxy, start_origin: StartOrigin) -> None:
        """The last word of the token server counts."""
        path, client = "/token", proxy.client()
        with start_origin("origin2.lab.test") as server:
            server.serve(path, Reply(b'{"token":"abc"}'), Reply(b"{}", 401))
            url = f"https://{server.name}{path}?{PULL}"
            assert [client.get(url, basic("old")).status for _ in range(2)] == [200, 401]
        assert client.get(url, basic("old")).status == 503

    def test_a_token_of_ours_opens_what_is_public_and_goes_nowhere(
        self, hub: Lab, proxy: Proxy, build_image: MakeImage
    ) -> None:
        """The registry never sees it: it would be refused. It has the form of the token specification."""
        hub.push(build_image(), "library/outage")
        client = proxy.client()
        url = f"https://{HUB}/v2/library/outage/manifests/latest"
        assert client.get(url, {"Accept": MANIFEST}).status == 200
        hub.auth.stop()
        given = client.get(TOKEN_URL + PULL)
        body = json.loads(given.body)
        assert (given.status, body["expires_in"], body["token"] == body["access_token"]) == (200, 60, True)
        assert time.strptime(body["issued_at"], "%Y-%m-%dT%H:%M:%SZ")
        hub.auth.start()
        mark = hub.hub.log.mark()
        bearer = {"Authorization": f"Bearer {body['token']}"}
        wait_until(
            lambda: client.get(url, {"Accept": MANIFEST, **bearer}).header(CACHE_STATUS) == "REVALIDATED", "real tokens"
        )
        assert mark.count(status=401) == 0 or all(not request.authorization for request in mark.requests(status=401))
        assert client.get(f"https://{HUB}/v2/library/outage/tags/list", bearer).status == 200
        assert body["token"] not in proxy.log

    def test_clients_with_credentials_of_their_own_are_let_in(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage
    ) -> None:
        """A token of any age gets its 200 at `/v2/`, and Basic if the registry took it before; a wrong one does not."""
        lab.push(build_image(), "private/outage")
        url, client = f"https://{lab.basic.name}/v2/", proxy.client()
        assert client.get(url).status == 401
        assert client.get(url, basic(PASSWORD)).status == 200
        manifest = f"{url}private/outage/manifests/latest"
        assert client.get(manifest, {"Accept": MANIFEST, **basic(PASSWORD)}).status == 200
        with lab.basic.stopped():
            assert client.get(url, {"Authorization": "Bearer expired"}).status == 200
            assert client.get(url, basic(PASSWORD)).status == 200
            assert client.get(url, basic("wrong")).status == 503
            assert client.get(url).status == 401  # as ever: a client without a login could not go on
            stale = client.get(manifest, {"Accept": MANIFEST, **basic(PASSWORD)})
            assert (stale.status, stale.header(CACHE_STATUS)) == (200, "STALE")


class Offline:
    """A proxy with OFFLINE, and the servers that must not be asked."""

    def __init__(self, proxy: Proxy, pulled: Path, servers: tuple[SilentServer, ...]) -> None:
        self.proxy = proxy
        self.pulled = pulled
        self._servers = servers

    @property
    def connections(self) -> int:
        """How many have come to the servers."""
        return sum(server.connections for server in self._servers)


@pytest.fixture(scope="class")  # its servers stand where those of other tests do
def offline(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offline]:
    """Yield a warm proxy with OFFLINE, and what stands where the registry and the token server were."""
    directory = tmp_path_factory.mktemp("offline")
    login = {"AUTH_REGISTRIES": f"{NAME}:{USERNAME}:{PASSWORD}", "ALLOW_PUSH": "true"}
    lab.auth.stop()
    try:
        image = make_image(directory / "image", seed="", layers=2, layer_bytes=1000, architectures=("amd64",))
        with lab.proxy(directory / "proxy", login) as proxy:
            with lab.origin(NAME) as origin:
                origin.serve_image("warm/app", "latest", image)
                proxy.skopeo().pull(f"{NAME}/warm/app:latest", directory / "pulled")
            proxy.settings["OFFLINE"] = "true"
            registry, tokens = SilentServer(origin.address), SilentServer(lab.addresses["auth.docker.io"])
            with registry, tokens:
                yield Offline(proxy.restart(), directory / "pulled", (registry, tokens))
    finally:
        lab.auth.start()


class TestOffline:
    def test_what_is_stored_is_served_and_nobody_is_asked(self, offline: Offline, tmp_path: Path) -> None:
        """By a real client, from `/v2/` on; stale tags say so and why."""
        offline.proxy.skopeo("offline").pull(f"{NAME}/warm/app:latest", tmp_path / "pulled")
        assert hash_files(tmp_path / "pulled") == hash_files(offline.pulled)
        answer = offline.proxy.client().get(MANIFEST_URL, {"Accept": MANIFEST})
        assert (answer.header(CACHE_STATUS), answer.header("Warning")[:3]) == ("STALE", "299")
        assert access_log(offline.proxy, "/v2/warm/app/manifests/latest")[-1]["error"].endswith("OFFLINE is set")
        assert offline.connections == 0
        assert "OFFLINE is set: no registry is asked" in offline.proxy.log

    @pytest.mark.parametrize(
        "path",
        [
            "other/app/manifests/latest",
            f"warm/app/manifests/{ABSENT}",
            f"warm/app/blobs/{ABSENT}",
            "warm/app/tags/list",
            f"warm/app/referrers/{ABSENT}",
            "_catalog",
        ],
    )
    def test_what_is_not_stored_is_an_error_that_names_the_setting(self, offline: Offline, path: str) -> None:
        """In the words of registries."""
        answer = offline.proxy.client().get(f"https://{NAME}/v2/{path}", {"Accept": MANIFEST})
        assert (answer.status, "OFFLINE is set" in error_of(answer)) == (504, True)
        assert offline.connections == 0

    def test_pushes_are_refused_and_logins_not_confirmed(self, offline: Offline) -> None:
        """Pings and token requests are answered here, unless they carry a password."""
        client, base = offline.proxy.client(), f"https://{NAME}/v2/"
        push = client.request("POST", f"{base}warm/app/blobs/uploads/", body=b"")
        assert (push.status, "OFFLINE is set" in error_of(push)) == (403, True)
        assert client.head(f"{base}warm/app/blobs/{ABSENT}").status == 504
        assert [client.get(base).status, client.get(base, basic(PASSWORD)).status] == [200, 503]
        token = [client.get(TOKEN_URL + PULL), client.get(TOKEN_URL + PULL, basic(PASSWORD))]
        assert [answer.status for answer in token] == [200, 503]
        assert offline.connections == 0

    def test_tunnels_are_not_its_business(self, offline: Offline, start_origin: StartOrigin) -> None:
        """A host that is not intercepted is reached as ever: who answers there has a certificate of its own."""
        start_origin("edge.lab.test")
        with pytest.raises(OSError, match="certificate verify failed"):
            offline.proxy.client().get("https://edge.lab.test/")
