"""Who fetched first, who asks, upstream up or down: who gets what is stored, with real registries and token servers."""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import Client
from lab.image import MANIFEST, Image, random_chunks
from lab.lab import HUB, Lab
from lab.origin import Reply
from lab.proxy import Proxy
from lab.registry import GUEST, GUEST_PASSWORD, PASSWORD, USERNAME, Registry

pytestmark = pytest.mark.e2e

TOKEN, BASIC = "token.lab.test", "basic.lab.test"
NOBODY: Mapping[str, str] = {}


def basic(username: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


ALICE, BOB = basic(USERNAME, PASSWORD), basic(GUEST, GUEST_PASSWORD)
WRONG = basic(USERNAME, "hunter2-Zq7")


@dataclass(frozen=True)
class Site:
    """A registry of the lab, and how its clients log in."""

    host: str
    registry: Registry
    token_server: str | None = None
    service: str = ""

    def token(self, client: Client, name: str, login: Mapping[str, str]) -> dict[str, str]:
        """Log in; returns what a client shows then."""
        if self.token_server is None:
            return dict(login)
        query = f"service={self.service}&scope=repository:{name}:pull"
        answer = client.get(f"https://{self.token_server}/token?{query}", login)
        assert answer.status == 200
        return {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}


@pytest.fixture
def site(lab: Lab, request: pytest.FixtureRequest) -> Site:
    match request.param:
        case "token":
            return Site(TOKEN, lab.token, "auth.lab.test", TOKEN)
        case "hub":
            return Site(HUB, lab.hub, "auth.docker.io", "registry.docker.io")
        case _:
            return Site(BASIC, lab.basic)


SITES = pytest.mark.parametrize("site", ["token", "basic", "hub"], indirect=True)


class Stored:
    """An image in one repository, and its parts in every form that a client may ask for."""

    def __init__(self, host: str, name: str, image: Image) -> None:
        self.url = f"https://{host}/v2/{name}"
        self.name = name
        self._manifest = image.digest
        self._blob = next(digest for digest in image.blobs if digest != image.digest)

    def pull(self, client: Client, login: Mapping[str, str]) -> None:
        """Fetch all of it, as somebody who may."""
        assert self.ask(client, login, tag_first=True) == [200, 200, 200, 200, 200, 206]

    def ask(self, client: Client, login: Mapping[str, str], *, tag_first: bool = False) -> list[int]:
        """Ask for everything; returns the statuses. The tag is asked for last if it is not to open the rest."""
        tag, digest = f"{self.url}/manifests/latest", f"{self.url}/manifests/{self._manifest}"
        blob, fields = f"{self.url}/blobs/{self._blob}", {"Accept": MANIFEST, **login}
        asked = [
            ("GET", tag, fields),
            ("GET", digest, fields),
            ("HEAD", digest, fields),
            ("GET", blob, dict(login)),
            ("HEAD", blob, dict(login)),
            ("GET", blob, {**login, "Range": "bytes=0-9"}),
        ]
        if not tag_first:
            asked.append(asked.pop(0))
            asked.append(("HEAD", tag, fields))
        return [client.request(method, url, given).status for method, url, given in asked]


@contextmanager
def cut_off(lab: Lab, site: Site, client: Client, *names: str) -> Iterator[None]:
    """Stop a registry, and the token server if it has one; afterwards wait until the proxy has found both again."""
    with ExitStack() as cleanup:
        cleanup.enter_context(site.registry.stopped())
        if site.token_server is not None:
            lab.auth.stop()
            cleanup.callback(lab.auth.start)
        yield
    deadline_s = time.monotonic() + 20
    # A token that was asked for in vain is not asked for again at once, each for itself.
    for name in names:
        while client.get(f"https://{site.host}/v2/{name}/manifests/none").status >= 500:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def settings(lab: Lab, **more: str) -> dict[str, str]:
    """Return those under which tags are fresh, and tokens are seen on their way."""
    return {
        "REGISTRIES": f"{lab.proxy_settings['REGISTRIES']} auth.lab.test",
        "ENABLE_MANIFEST_CACHE": "true",
        **more,
    }


def outcome(statuses: list[int]) -> str:
    """Sum up answers that have to be of one kind."""
    if all(status in (200, 206) for status in statuses):
        return "all"
    return "none" if all(status in (401, 403) for status in statuses) else f"mixed {statuses}"


@SITES
def test_who_gets_what_is_stored(lab: Lab, start_proxy: StartProxy, build_image: MakeImage, site: Site) -> None:
    """Without a login of the operator's: what is stored was fetched by one client, and another one asks.

    While the registry is away first, for its answers change what is known.
    """
    image = build_image()
    has_public = site.token_server is not None
    for name in ("private/alices", "team/alices", "team/nobodys"):
        lab.push(image, name)
    lab.auth.set_lifetime(-120)
    expired = {name: site.token(lab.client, name, ALICE) for name in ("private/alices", "team/alices", "team/nobodys")}
    lab.auth.set_lifetime()
    proxy = start_proxy(settings(lab))
    client = proxy.client()

    def askers(name: str) -> dict[str, Mapping[str, str]]:
        return {
            "anonymous": NOBODY,
            "alice": site.token(client, name, ALICE),
            "bob": site.token(client, name, BOB),
            "wrong password": WRONG,
            "expired token": expired[name] if has_public else basic(USERNAME, "changed-8Kd"),
        }

    rows = {"private/alices": Stored(site.host, "private/alices", image)}
    if has_public:
        rows["team/alices"] = Stored(site.host, "team/alices", image)
        rows["team/nobodys"] = Stored(site.host, "team/nobodys", image)
    logins = {name: askers(name) for name in rows}
    client.get(f"https://{site.host}/v2/")  # as every pull begins
    for name, stored in rows.items():
        stored.pull(client, logins[name]["anonymous" if name == "team/nobodys" else "alice"])

    with cut_off(lab, site, client, *rows):
        down = {
            (name, who): outcome(rows[name].ask(client, login)) for name in rows for who, login in logins[name].items()
        }
        refused = client.get(f"https://{site.host}/v2/private/alices/manifests/latest", {"Accept": MANIFEST})
    up = {(name, who): outcome(rows[name].ask(client, login)) for name in rows for who, login in logins[name].items()}

    only_alice = {"anonymous": "none", "alice": "all", "bob": "none", "wrong password": "none", "expired token": "none"}
    everybody = dict.fromkeys(only_alice, "all")
    # Once somebody without a login has been answered, it is public: for who comes with a bad login, too.
    expected_down = {"private/alices": only_alice, "team/alices": only_alice, "team/nobodys": everybody}
    expected_up = {"private/alices": only_alice, "team/alices": everybody, "team/nobodys": everybody}
    assert down == {(name, who): expected_down[name][who] for name in rows for who in only_alice}
    assert up == {(name, who): expected_up[name][who] for name in rows for who in only_alice}
    # The registry's own challenge, for this repository: a client knows where to log in.
    assert refused.status == 401
    challenge = refused.header("WWW-Authenticate")
    assert ("repository:private/alices:pull" in challenge) if has_public else challenge.startswith("Basic")


@SITES
def test_what_the_operators_login_opens_is_for_everybody(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, site: Site
) -> None:
    """That is what it is there for; ALLOW_CLIENTS and IMAGE_RULES limit it."""
    image = build_image()
    lab.push(image, "private/operators")
    stored = Stored(site.host, "private/operators", image)
    client = start_proxy(settings(lab, AUTH_REGISTRIES=f"{site.host}:{USERNAME}:{PASSWORD}")).client()
    askers = {"anonymous": NOBODY, "bob": site.token(client, "private/operators", BOB), "wrong password": WRONG}
    stored.pull(client, NOBODY)
    with cut_off(lab, site, client, "private/operators"):
        down = {who: outcome(stored.ask(client, login)) for who, login in askers.items()}
    up = {who: outcome(stored.ask(client, login)) for who, login in askers.items()}
    assert up == down == dict.fromkeys(askers, "all")


@pytest.mark.parametrize("site", ["token"], indirect=True)
def test_a_rebuilt_index_opens_nothing(lab: Lab, start_proxy: StartProxy, build_image: MakeImage, site: Site) -> None:
    """Who may read what was in it: nobody gets what is stored before its registry was asked, then who may."""
    lab.push(image := build_image(), name := "private/rebuilt")
    proxy = start_proxy(settings(lab))
    client = proxy.client()
    stored = Stored(site.host, name, image)
    askers = {"anonymous": NOBODY, "bob": site.token(client, name, BOB), "alice": site.token(client, name, ALICE)}
    stored.pull(client, askers["alice"])
    proxy.stop()
    (proxy.cache_directory / "cache.db").write_bytes(b"no index any more" * 10_000)
    client = proxy.start().client()
    mark = site.registry.log.mark()

    with cut_off(lab, site, client, name):
        down = [status for login in askers.values() for status in stored.ask(client, login)]
    up = {who: outcome(stored.ask(client, login)) for who, login in askers.items()}

    assert set(down) <= {401, 403, 502}
    assert "rebuilding it from the content files" in proxy.log
    assert up == {"anonymous": "none", "bob": "none", "alice": "all"}
    assert mark.count(method="GET", path_contains="/blobs/") == 0  # the bytes were still there


class TestDigests:
    """A digest alone opens nothing."""

    def test_the_same_content_in_a_public_and_a_private_repository(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """It is stored once; who may not read the one repository gets it from the other."""
        image = build_image()
        site = Site(TOKEN, lab.token, "auth.lab.test", TOKEN)
        for name in ("private/same", "team/same"):
            lab.push(image, name)
        proxy = start_proxy(settings(lab))
        client = proxy.client()
        Stored(TOKEN, "private/same", image).pull(client, site.token(client, "private/same", ALICE))
        files = sorted(path for path in (proxy.cache_directory / "content").rglob("*") if path.is_file())
        read = lab.token.log.mark()
        assert outcome(Stored(TOKEN, "team/same", image).ask(client, NOBODY)) == "all"
        assert outcome(Stored(TOKEN, "private/same", image).ask(client, NOBODY)) == "none"
        assert {
            request.method for request in read.requests() if request.status == 200 and "/blobs/" in request.target
        } == {"HEAD"}
        assert sorted(path for path in (proxy.cache_directory / "content").rglob("*") if path.is_file()) == files

    def test_a_guess_gets_nothing(self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
        """Not by a repository that bob may read, not by one that is not there, not at another registry."""
        image = build_image()
        lab.push(image, "private/guess")
        site = Site(TOKEN, lab.token, "auth.lab.test", TOKEN)
        lab.push(build_image("own"), "team/bobs")
        lab.push(build_image("other"), "team/bobs", to=lab.other)
        client = start_proxy(settings(lab)).client()
        Stored(TOKEN, "private/guess", image).pull(client, site.token(client, "private/guess", ALICE))
        bob = site.token(client, "team/bobs", BOB)
        for host, name, login in (
            (TOKEN, "team/bobs", bob),
            (TOKEN, "team/none", NOBODY),
            ("other.lab.test", "team/bobs", NOBODY),
        ):
            statuses = Stored(host, name, image).ask(client, login)[:5]
            assert set(statuses) == {404}, (host, name)

    def test_a_registry_that_lies_gets_nothing_out(
        self, lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin, build_image: MakeImage
    ) -> None:
        """It says that it has a blob, of the right size, and is not believed: what it sends is something else."""
        image = build_image()
        lab.push(image, "private/lied")
        site = Site(TOKEN, lab.token, "auth.lab.test", TOKEN)
        client = start_proxy(settings(lab)).client()
        Stored(TOKEN, "private/lied", image).pull(client, site.token(client, "private/lied", ALICE))
        liar = start_origin("origin.lab.test")
        manifest = image.read(image.digest)
        blob = next(digest for digest in image.blobs if digest != image.digest)
        false = bytes(len(image.read(blob)))
        liar.serve(f"/v2/a/blobs/{blob}", Reply(false))
        fields = {"Docker-Content-Digest": image.digest, "Content-Type": MANIFEST}
        liar.serve(f"/v2/a/manifests/{image.digest}", Reply(bytes(len(manifest)), headers=fields))
        liar.serve("/v2/a/manifests/latest", Reply(bytes(len(manifest)), headers=fields))
        url = "https://origin.lab.test/v2/a"
        for _ in range(2):
            assert client.get(f"{url}/blobs/{blob}").status == 502
            for reference in (image.digest, "latest"):
                assert client.get(f"{url}/manifests/{reference}", {"Accept": MANIFEST}).status == 502


def test_a_download_that_runs_is_for_whom_it_is(lab: Lab, start_proxy: StartProxy) -> None:
    """While alice's blob arrives, others are refused; who may read joins her."""
    digest = lab.storage.add_blob("private/running", random_chunks("running", 2 << 20))
    site = Site(TOKEN, lab.token, "auth.lab.test", TOKEN)
    client = start_proxy(settings(lab)).client()
    url = f"https://{TOKEN}/v2/private/running/blobs/{digest}"
    alice, again = (site.token(client, "private/running", ALICE) for _ in range(2))
    bob = site.token(client, "private/running", BOB)
    with lab.token.throttled(600_000), client.stream("GET", url, alice) as first:
        assert (first.status, len(first.read(1))) == (200, 1)
        others = [client.get(url, login).status for login in (NOBODY, bob, WRONG)]
        joined: list[int] = []
        joiner = threading.Thread(target=lambda: joined.append(len(client.get(url, again).body)))
        joiner.start()
        assert len(first.read()) == (2 << 20) - 1
        joiner.join()
    assert others == [401, 401, 401]
    assert joined == [2 << 20]


def test_proofs_survive_a_restart(lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
    """Alice's password is recognised by its hash; nobody else's is. A tag is revalidated where that is wanted."""
    image = build_image()
    lab.push(image, "private/kept")
    proxy = start_proxy({})
    stored = Stored(BASIC, "private/kept", image)
    assert lab.basic.name == BASIC
    stored.pull(proxy.client(), ALICE)
    proxy.restart()
    with lab.basic.stopped():
        outcomes = [outcome(stored.ask(proxy.client(), login)) for login in (NOBODY, WRONG, ALICE, NOBODY)]
    assert outcomes == ["none", "none", "all", "none"]


def test_sharing_is_a_choice(lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
    """With PRIVATE_IMAGES=share what is stored is everybody's, as it was with the predecessors."""
    image = build_image()
    lab.push(image, "private/shared")
    client = start_proxy(settings(lab, PRIVATE_IMAGES="share")).client()
    stored = Stored(BASIC, "private/shared", image)
    assert lab.basic.name == BASIC
    stored.pull(client, ALICE)
    assert outcome(stored.ask(client, NOBODY)) == "all"


def test_rules_of_the_operator(lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
    """An image that is not served is refused with the rule that says so, stored or not, read, listed or pushed."""
    image = build_image()
    for name in ("team/served", "closed/stored"):
        lab.push(image, name)
    host = lab.noauth.name
    warm = start_proxy(settings(lab, ALLOW_PUSH="true"))
    Stored(host, "closed/stored", image).pull(warm.client(), NOBODY)
    warm.stop()
    rule = f"allow {host}/closed/* from 10.1.0.0/16"
    warm.settings["IMAGE_RULES"] = rule
    client = warm.start().client()
    assert outcome(Stored(host, "team/served", image).ask(client, NOBODY)) == "all"
    assert outcome(Stored(host, "closed/stored", image).ask(client, NOBODY)) == "none"
    for method, path in (
        ("GET", "closed/stored/tags/list"),
        ("POST", "closed/stored/blobs/uploads/"),
        ("POST", f"team/served/blobs/uploads/?mount={image.digest}&from=closed/stored"),
    ):
        answer = client.request(method, f"https://{host}/v2/{path}")
        assert answer.status == 403
        error = json.loads(answer.body)["errors"][0]
        assert (error["code"], f"`{rule}`" in error["message"]) == ("DENIED", True)


def test_a_network_that_is_not_served(lab: Lab, proxy: Proxy) -> None:
    """Neither by CONNECT nor by forwarding, to a registry or elsewhere; the proxy's own pages are for everybody."""
    assert lab.noauth.name
    proxy.stop()
    proxy.settings["ALLOW_CLIENTS"] = "10.0.0.0/8"
    proxy.start()
    for host in ("noauth.lab.test", "edge.lab.test"):
        with pytest.raises(OSError, match="403"):
            proxy.client().get(f"https://{host}/v2/")
    assert proxy.request("GET", "http://edge.lab.test/").status == 403
    assert [proxy.request("GET", path).status for path in ("/", "/ca.crt", "/readyz")] == [200, 200, 200]
    proxy.stop()
    proxy.settings["ALLOW_CLIENTS"] = "10.0.0.0/8 127.0.0.0/8"
    assert proxy.start().client().get("https://noauth.lab.test/v2/").status == 200
