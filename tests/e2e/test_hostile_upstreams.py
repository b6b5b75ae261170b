"""Upstreams that misbehave: every case of `lab.hostile_cases`, for blobs, manifests and tokens, over real TLS.

For each: what the client gets, what the log says of it, that nothing wrong is stored, and that the client gets the
right content as soon as the origin has become good.
"""

import hashlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from lab.hostile import (
    Case,
    Cut,
    Outcome,
    Place,
    Refused,
    Relayed,
    StandIn,
    Through,
    Whole,
    blob,
    manifest,
    token,
)
from lab.hostile_cases import FLOODS, HOSTILE_CASES, LENGTHS, RANGES, WRONG_CONTENT
from lab.http_client import Response
from lab.image import MANIFEST
from lab.lab import Lab
from lab.misbehaviour import Content, Playing, Script, Step, body, head
from lab.name_server import NameServer
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.secrets import files_with_secrets, secrets_in
from lab.workers import settled_rss_bytes

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
CAP_BYTES = 48 * MIB
MEMORY_BYTES = 40 * MIB
"""By how much the proxy may grow in a flood."""

REGISTRY = "origin.lab.test"
REGISTRY_WITH_TOKENS = "origin2.lab.test"
TOKEN_SERVER = "edge.lab.test"
CLIENT_TOKEN_SERVER = "edge2.lab.test"
LIMIT_S = 30.0
FORBIDDEN = "/forbidden"
"""Where redirects into this machine lead."""

SETTINGS = {
    "PROXY_READ_TIMEOUT": "1s",
    "NOT_FOUND_TIME": "0",
    "CACHE_MAX_SIZE": str(CAP_BYTES),
    "CACHE_MIN_FREE": "0",
}


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Stage:
    """One proxy and its hostile upstreams, for the whole file: each case has a repository of its own."""

    proxy: Proxy
    registry: Origin
    registry_with_tokens: Origin
    tokens: Origin
    client_tokens: Origin


@pytest.fixture(scope="module")
def stage(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Yield the proxy and three scripted origins."""
    directory = tmp_path_factory.mktemp("hostile")
    host = lab.addresses["edge2.lab.test"].host
    resolvers = directory / "resolvers.conf"
    resolvers.write_text(f"resolver {host} ipv6=off;\n")
    names = {"rebind.example": [[host]], "both.example": [["192.0.2.1", host]]}
    with ExitStack() as started:
        started.enter_context(NameServer(host, names))
        origins = [
            started.enter_context(lab.origin(name))
            for name in (REGISTRY, REGISTRY_WITH_TOKENS, TOKEN_SERVER, CLIENT_TOKEN_SERVER)
        ]
        registries = f"{lab.proxy_settings['REGISTRIES']} {CLIENT_TOKEN_SERVER}"
        settings = SETTINGS | {"RESOLVERS_FILE": str(resolvers), "REGISTRIES": registries}
        proxy = started.enter_context(lab.proxy(directory / "proxy", settings))
        origins[0].serve("/loop", Reply(status=307, headers={"Location": "/loop"}))
        yield Stage(proxy, *origins)
        assert secrets_in(proxy.log.encode()) == []
        assert files_with_secrets([proxy.cache_directory]) == []


@dataclass(frozen=True, slots=True)
class Scene:
    """A case at a place."""

    case: Case
    place: Place

    @property
    def repository(self) -> str:
        """Its own."""
        return f"hostile/{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"

    def __str__(self) -> str:
        return f"{self.case.does}-{self.place.value}"

    def content(self, *, good: bool = False) -> Content:
        """Return what is asked for; `good` when it must not be what the case makes."""
        makes = self.case.makes
        if makes is not None and not good:
            return makes(str(self))
        match self.place:
            case Place.BLOB:
                return blob(str(self))
            case Place.SMALL_BLOB:
                return blob(str(self), 5000)
            case Place.TAG | Place.DIGEST:
                return manifest(str(self))
            case Place.TOKEN | Place.CLIENT_TOKEN:
                return token(str(self))

    @property
    def outcome(self) -> Outcome:
        """What the client has to get."""
        return self.case.client[self.place]

    @property
    def digest(self) -> str:
        """Of what the client wants."""
        return (manifest(str(self)) if self.place is Place.TOKEN else self.content()).digest

    @property
    def path(self) -> str:
        """What the client asks for."""
        match self.place:
            case Place.BLOB | Place.SMALL_BLOB:
                return f"/v2/{self.repository}/blobs/{self.digest}"
            case Place.DIGEST:
                return f"/v2/{self.repository}/manifests/{self.digest}"
            case Place.TAG | Place.TOKEN:
                return f"/v2/{self.repository}/manifests/latest"
            case Place.CLIENT_TOKEN:
                return f"/token/{self.repository}"

    def url(self) -> str:
        """Return the whole of it."""
        if self.place is Place.CLIENT_TOKEN:
            return f"https://{CLIENT_TOKEN_SERVER}{self.path}?" + urlencode({"service": "x"})
        return f"https://{REGISTRY_WITH_TOKENS if self.place is Place.TOKEN else REGISTRY}{self.path}"


def is_quick(scene: Scene) -> bool:
    """Whether it belongs to every run: each case by one way at least, and where another ends differently."""
    if scene.case.heals and Place.TAG in scene.case.client and scene.place in (Place.BLOB, Place.SMALL_BLOB):
        return False  # it takes a pause and another attempt; tests/e2e/test_blobs.py has the one that matters
    others = [place for place in (Place.BLOB, Place.TAG) if place is not scene.place and place in scene.case.client]
    first = Place.TAG if scene.case.heals and Place.TAG in scene.case.client else next(iter(scene.case.client))
    return scene.place is first or scene.outcome not in [scene.case.client[place] for place in (first, *others)]


SCENES = [Scene(case, place) for case in HOSTILE_CASES for place in case.client]
PLAYED = [pytest.param(scene, id=str(scene), marks=() if is_quick(scene) else pytest.mark.slow) for scene in SCENES]
_MAY_STAY = (*FLOODS, *LENGTHS, *WRONG_CONTENT, *RANGES)
RECOVERED = [
    pytest.param(
        scene,
        id=str(scene),
        marks=() if is_quick(scene) and any(scene.case is case for case in _MAY_STAY) else pytest.mark.slow,
    )
    for scene in SCENES
    if scene.case.recovers and not (scene.place is Place.DIGEST and scene.case.makes is not None)
]


def set_up(stage: Stage, scene: Scene, *, good: bool = False) -> None:
    """Let the upstreams play the case, or be good."""
    content = scene.content(good=good)
    honest = Reply(content.body, headers={"Content-Type": content.media_type, "Docker-Content-Digest": content.digest})
    bad = [Script(content, *steps) for steps in scene.case.answers]
    replies = [honest] if good else [*bad, honest] if scene.case.heals else bad
    match scene.place:
        case Place.TOKEN:
            stage.tokens.serve("/token", *replies)
            stage.registry_with_tokens.serve(scene.path, Script(manifest(str(scene)), guarded()))
        case Place.CLIENT_TOKEN:
            stage.client_tokens.serve(scene.path, *replies)
        case _:
            stage.tokens.serve("/token", Reply(token("good").body))
            stage.registry.serve(scene.path, *replies)


def guarded() -> Step:
    """Answer who shows a token, and challenge who does not."""
    challenge = f'Bearer realm="https://{TOKEN_SERVER}/token",service="x"'

    def step(playing: Playing) -> None:
        if playing.head.fields.get("authorization", "").startswith("Bearer "):
            head()(playing)
            body()(playing)
        else:
            head(401, www_authenticate=challenge, content_length="0")(playing)

    return step


_numbers = itertools.count()


def let_settle(stage: Stage, place: Place) -> None:
    """Return when the proxy asks the upstreams again: what went before may have looked like an outage."""
    if place is Place.TOKEN:
        stage.tokens.serve("/token", Reply(token("healthy").body))

    def is_asked() -> bool:
        good = manifest(f"healthy {next(_numbers)}")
        path = f"/v2/healthy/{next(_numbers)}/manifests/latest"
        host = REGISTRY_WITH_TOKENS if place is Place.TOKEN else REGISTRY
        origin = stage.registry_with_tokens if place is Place.TOKEN else stage.registry
        origin.serve(path, Script(good, guarded()) if place is Place.TOKEN else Script(good, head(), body()))
        return stage.proxy.client().get(f"https://{host}{path}", {"Accept": MANIFEST}).status == 200

    wait_until(is_asked, "the upstreams are asked again")


@dataclass(frozen=True, slots=True)
class Got:
    """What the client got: an answer, or the beginning of one."""

    response: Response
    cut: bool


def ask(stage: Stage, scene: Scene, *, most_bytes: int = 64 * MIB) -> Got:
    """Send the client's request and read its answer, not more than so much of it."""
    client = stage.proxy.client()
    received, cut = bytearray(), False
    with client.stream("GET", scene.url(), {"Accept": MANIFEST}) as response:
        try:
            while len(received) < most_bytes and (piece := response.read1(MIB)):
                received += piece
            cut = len(received) < most_bytes and bool(response.length)
        except (http.client.IncompleteRead, ConnectionError):
            cut = True
        return Got(Response(response.status, response.headers, bytes(received)), cut)


def log_errors(stage: Stage, path: str) -> list[str]:
    """Return what the access log says of the requests for a path."""
    return [line["error"] for line in access_log(stage.proxy, path)]


def wrong_files(proxy: Proxy) -> list[Path]:
    """Return the files of the store whose content is not what their name says."""
    return [path for path in proxy.cache_directory.glob("content/*/*/*") if path.is_file() and not _is_right(path)]


def _is_right(path: Path) -> bool:
    """Whether a file is what its name says, looked at once as long as it stays as it is."""
    stat = path.stat()
    seen = (str(path), stat.st_ino, stat.st_mtime_ns)
    if seen not in _right and hashlib.sha256(path.read_bytes()).hexdigest() == path.name:
        _right.add(seen)
    return seen in _right


_right: set[tuple[str, int, int]] = set()


def is_stored(proxy: Proxy, digest: str) -> bool:
    return any(proxy.cache_directory.glob(f"content/*/*/{digest.partition(':')[2]}"))


@contextmanager
def flat_memory(proxy: Proxy) -> Iterator[None]:
    """Watch the memory of a proxy meanwhile; AssertionError when it has grown by more than MEMORY_BYTES."""
    before_bytes = highest_bytes = settled_rss_bytes(proxy)
    over = threading.Event()

    def watch() -> None:
        nonlocal highest_bytes
        while not over.wait(0.05):
            highest_bytes = max(highest_bytes, proxy.rss_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    grown_bytes = max(highest_bytes, proxy.rss_bytes()) - before_bytes
    assert grown_bytes < MEMORY_BYTES, f"grew by {grown_bytes / MIB:.1f} MiB"


@pytest.mark.parametrize("scene", PLAYED)
def test_a_hostile_upstream(stage: Stage, scene: Scene) -> None:
    """The client gets what the table says, the log says why, and nothing wrong is stored then or later."""
    let_settle(stage, scene.place)
    set_up(stage, scene)
    if scene.case.is_flood:
        with flat_memory(stage.proxy):
            got = ask(stage, scene)
    else:
        got = ask(stage, scene)
    check_answer(scene, got)
    check_log(stage, scene)
    assert stage.client_tokens.log.count(path_contains=FORBIDDEN) == 0
    assert wrong_files(stage.proxy) == []
    if isinstance(scene.outcome, Whole):
        wait_until(lambda: is_stored(stage.proxy, scene.digest), "the right content is stored")
    else:
        assert not is_stored(stage.proxy, scene.digest)


def check_answer(scene: Scene, got: Got) -> None:
    """Compare an answer with what the client has to get."""
    response, wanted = got.response, manifest(str(scene)) if scene.place is Place.TOKEN else scene.content()
    told = (response.status, got.cut, response.body[:300])
    match scene.outcome:
        case Whole():
            assert (response.status, got.cut, response.body == wanted.body) == (200, False, True), told
            if scene.place not in (Place.BLOB, Place.SMALL_BLOB):
                assert response.header("Content-Type") == wanted.media_type
                assert response.header("Docker-Content-Digest") == wanted.digest
        case Refused(words, status):
            assert (response.status, got.cut) == (status, False), told
            (error,) = json.loads(response.body)["errors"]
            assert words in error["message"]
            assert error["code"] == ("TOOMANYREQUESTS" if status == 429 else "UNAVAILABLE")
        case Relayed(status):
            assert (response.status, got.cut) == (status, False), told
        case Cut():
            assert (response.status, got.cut) == (200, True), told
            assert len(response.body) < int(response.header("Content-Length"))
        case Through():
            assert response.status == 200, told
        case StandIn():
            assert (response.status, "token" in json.loads(response.body)) == (200, True), told


def check_log(stage: Stage, scene: Scene) -> None:
    """See that the request's line says why."""
    match scene.outcome:
        case Through(words):
            assert any(scene.digest in line and words in line for line in stage.proxy.log.splitlines())
        case Refused(words) | Relayed(_, words) | Cut(words) | StandIn(words):
            wait_until(lambda: bool(log_errors(stage, scene.path)), "the line of the request")
            assert words in log_errors(stage, scene.path)[-1]
        case Whole():
            pass


@pytest.mark.parametrize("scene", RECOVERED)
def test_an_upstream_that_has_become_good(stage: Stage, scene: Scene) -> None:
    """Nothing of what it did before is left: the client gets the right content, and it is stored.

    A digest names content that the case has made itself for good, and is left out there.
    """
    set_up(stage, scene, good=True)
    good = manifest(str(scene)) if scene.place is Place.TOKEN else scene.content(good=True)
    if scene.place is Place.CLIENT_TOKEN:
        wait_until(lambda: ask(stage, scene).response.body == good.body, "the token")
        return
    wait_until(lambda: ask(stage, scene).response.status == 200, "a good answer")
    got = ask(stage, scene)
    assert (got.response.status, got.cut, got.response.body == good.body) == (200, False, True)
    if scene.place not in (Place.BLOB, Place.SMALL_BLOB):
        assert got.response.header("Content-Type") == good.media_type
    wait_until(lambda: is_stored(stage.proxy, good.digest), "the right content is stored")
    assert wrong_files(stage.proxy) == []
