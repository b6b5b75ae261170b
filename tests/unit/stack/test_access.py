"""Who may read what is stored: what a registry's answers mean, on a real one that changes its mind."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.engine.bodies import attached, detach
from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry as Host
from regproxy.origin.circuits import Circuits
from regproxy.origin.errors import Answer
from regproxy.policy.access import Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.stack import access, access_questions, manifests
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, exchange_of
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.store.errors import DigestMismatch
from regproxy.store.flights import Flights
from regproxy.store.partial import PartialFile
from unit.stack.registry import OCI, Registry, hang_up, status

BLOB, MANIFEST = b"layer" * 1000, b'{"schemaVersion":2}'
MINUTE_S, HOUR_S = 60.0, 3600.0

type Ask = Callable[..., http.HTTPFlow]


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


ALICE, BOB = basic("alice:wonderland-7"), basic("bob:builder-5Rw")
UNSEEN = "Bearer e30.eyJpc3MiOiJ4In0.x"
"""A token without a subject: it says that it is nobody's."""


def open_to(*authorizations: str | None) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]:
    """Let only these in; others get a challenge."""

    async def guard(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.headers.get("Authorization") in authorizations:
            return None
        fields = {"WWW-Authenticate": 'Bearer realm="https://169.254.169.254/t",service="s",scope="repository:x:pull"'}
        return web.Response(status=401, headers=fields)

    return guard


class Reader:
    """Reads one blob and one manifest, as whoever."""

    def __init__(self, core: Core, ask: Ask, registry: Registry) -> None:
        self.core = core
        self.blobs, self.manifests = BlobCache(core), ManifestCache(core)
        self._ask = ask
        self.registry = registry
        self.blob, self.manifest = registry.blob(BLOB), registry.tag("3.20", MANIFEST)

    async def flow(self, path: str, authorization: str | None = None, method: str = "GET") -> http.HTTPFlow:
        """Ask for something below the repository."""
        fields = {"Accept": OCI} | ({"Authorization": authorization} if authorization else {})
        flow = self._ask(self.core, f"/v2/library/alpine/{path}", method, **fields)
        # Passwords are hashed in a thread but in these tests: the injector has ended.
        await (self.blobs if "/blobs/" in flow.request.path else self.manifests).request(flow)
        body = attached(flow)
        if body is not None and body.released is not None:
            try:
                await body.released(0)
            except DigestMismatch:
                flow.response = None  # the client sees a head, and its connection cut
        detach(flow)
        while self.core.store.running(self.blob) is not None:  # noqa: ASYNC110 - the store tells readers only
            await asyncio.sleep(0.001)
        return flow

    async def read(self, authorization: str | None = None) -> tuple[int | None, int | None, int | None]:
        """Return the statuses of blob, manifest by digest and by tag; None where a client gets nothing whole."""
        flows = [
            await self.flow(path, authorization)
            for path in (f"blobs/{self.blob}", f"manifests/{self.manifest}", "manifests/3.20")
        ]
        return tuple(None if flow.response is None else flow.response.status_code for flow in flows)  # type: ignore[return-value]


ALL, NONE = (200, 200, 200), (401, 401, 401)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the time by which access is decided."""
    turned = SimpleNamespace(now_s=1_700_000_000.0)
    for module in (access, manifests):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: turned.now_s))
    return turned


@pytest.fixture
async def reader(configure: Callable[..., Core], ask: Ask, registry: Registry, clock: SimpleNamespace) -> Reader:
    del clock
    return Reader(configure(ENABLE_MANIFEST_CACHE="true", MANIFEST_CACHE_SECONDARY_TIME="30d"), ask, registry)


async def test_what_one_login_opens_is_not_the_others(reader: Reader, registry: Registry) -> None:
    """Alice reads without asking for five minutes; bob and nobody are refused by the registry, each time."""
    registry.override = open_to(ALICE)
    assert await reader.read(ALICE) == ALL
    registry.take_asked()
    assert await reader.read(ALICE) == ALL
    assert registry.take_asked() == []
    assert await reader.read(BOB) == await reader.read() == NONE
    assert len(registry.take_asked()) >= 6


async def test_a_blob_is_its_readers_as_soon_as_it_is_stored(
    reader: Reader, registry: Registry, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is not asked again by who comes back before the download has ended."""
    stored, commit = asyncio.Event(), Flights.commit

    async def slow_commit(flights: Flights, digest: Digest, partial: PartialFile) -> None:
        await commit(flights, digest, partial)
        stored.set()
        await asyncio.sleep(10)

    monkeypatch.setattr(Flights, "commit", slow_commit)
    registry.override = open_to(ALICE)
    hits = []
    for _ in range(2):
        flow = ask(reader.core, f"/v2/library/alpine/blobs/{reader.blob}", "GET", Authorization=ALICE)
        await reader.blobs.request(flow)
        detach(flow)
        await stored.wait()
        exchange = exchange_of(flow)
        assert exchange
        hits.append((exchange.cache_status, len(registry.take_asked())))
    assert hits == [(CacheStatus.MISS, 1), (CacheStatus.HIT, 0)]


async def test_who_is_told_404_for_want_of_rights_takes_no_tag_from_others(reader: Reader, registry: Registry) -> None:
    """Some registries hide what one may not read; for an outage alice's image stays."""

    async def hidden(request: web.BaseRequest) -> web.StreamResponse | None:
        return None if request.headers.get("Authorization") == ALICE else web.Response(status=404)

    registry.override = hidden
    assert await reader.read(ALICE) == ALL
    for _ in range(2):
        told = (await reader.flow("manifests/3.20", BOB)).response
        assert told is not None
        assert told.status_code == 404
    registry.override = status(503)
    assert await reader.read(ALICE) == ALL


async def test_a_check_is_one_for_a_repository_and_a_while(
    reader: Reader, registry: Registry, clock: SimpleNamespace
) -> None:
    """After the lifetime the next request waits for a HEAD, those beside it for the same one."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    registry.take_asked()
    clock.now_s += 5 * MINUTE_S
    flows = await asyncio.gather(*(reader.flow(f"blobs/{reader.blob}", ALICE) for _ in range(5)))
    assert {flow.response.status_code for flow in flows if flow.response is not None} == {200}
    assert registry.methods() == ["HEAD"]
    assert await reader.read(ALICE) == ALL
    assert registry.methods() == []


async def test_a_right_that_is_taken_back_ends(reader: Reader, registry: Registry, clock: SimpleNamespace) -> None:
    """After the lifetime the registry refuses; then an outage does not bring it back, nor does a crash."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    await reader.core.store.access.flush()
    clock.now_s += 5 * MINUTE_S
    registry.override = open_to()
    assert await reader.read(ALICE) == NONE
    registry.override = hang_up
    assert await reader.read(ALICE) == NONE
    path, client = "library/alpine", exchange_of(await reader.flow("manifests/3.20", ALICE))
    assert client is not None
    repository = Repository(client.registry, path)
    ledger = reader.core.store._ledger
    assert ledger is not None
    assert (await ledger.access(repository, client.client.key, None))[2] == 0.0


async def test_what_was_public_and_is_not_any_more(reader: Reader, registry: Registry, clock: SimpleNamespace) -> None:
    """Everybody has it for the lifetime, and in an outage; the first refusal ends both."""
    assert await reader.read() == ALL
    clock.now_s += 4 * MINUTE_S
    registry.override = open_to(ALICE)
    assert await reader.read() == ALL
    clock.now_s += 48 * HOUR_S
    registry.override = hang_up
    assert await reader.read() == ALL
    registry.override = open_to(ALICE)
    reader.core.upstream.circuits = Circuits()  # the outage is over, and known to be
    assert await reader.read() == NONE
    registry.override = hang_up
    assert await reader.read() == NONE


async def test_a_proof_has_its_grace(reader: Reader, registry: Registry, clock: SimpleNamespace) -> None:
    """A day in an outage, not longer; the refusal has the registry's challenge, for this repository."""
    registry.override = open_to(ALICE)
    await reader.read()
    await reader.read(ALICE)
    registry.override = hang_up
    clock.now_s += 23 * HOUR_S
    assert await reader.read(ALICE) == ALL
    clock.now_s += 1 * HOUR_S
    flow = await reader.flow(f"blobs/{reader.blob}", ALICE)
    assert flow.response is not None
    assert flow.response.status_code == 401
    wanted = 'Bearer realm="https://169.254.169.254/t",service="s",scope="repository:library/alpine:pull"'
    assert flow.response.headers["www-authenticate"] == wanted
    exchange = exchange_of(flow)
    assert exchange is not None
    assert "cannot be reached" in (exchange.error or "")


async def test_other_accepted_types_open_nothing_in_an_outage(reader: Reader, registry: Registry, ask: Ask) -> None:
    """What a tag meant for another kind of client is for who may read it, too."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    registry.override = hang_up
    answers = []
    for authorization in (BOB, ALICE):
        for method in ("GET", "HEAD"):
            fields = {"Accept": f"{OCI}, application/json", "Authorization": authorization}
            flow = ask(reader.core, "/v2/library/alpine/manifests/3.20", method, **fields)
            await reader.manifests.request(flow)
            assert flow.response is not None
            answers.append(flow.response.status_code)
    assert answers == [502, 502, 200, 200]


async def test_who_asks_at_the_same_time_gets_his_own_answer(reader: Reader, registry: Registry, ask: Ask) -> None:
    """In an outage alice comes with a token of the proxy's: nothing of hers goes upstream, as nothing of nobody's."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    alice = await reader.core.identities.of(ALICE)
    token = f"Bearer {reader.core.identities.give(alice)}"
    registry.override = hang_up
    flows = [
        ask(reader.core, "/v2/library/alpine/manifests/3.20", Accept=OCI, Cache_Control="no-cache", **fields)
        for fields in ({"Authorization": token}, {}, {"Authorization": token}, {})
    ]
    await asyncio.gather(*(reader.manifests.request(flow) for flow in flows))
    assert [flow.response.status_code for flow in flows if flow.response is not None] == [200, 403, 200, 403]


async def test_without_a_challenge_it_is_a_403(reader: Reader, registry: Registry) -> None:
    """A registry that never asked for a login: there is nothing that the client could do."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    registry.override = hang_up
    assert await reader.read() == (403, 403, 403)


async def test_a_token_that_says_that_it_is_nobodys_makes_nothing_public(reader: Reader, registry: Registry) -> None:
    """Who made it is not known: a token of Gitea has no subject either, and is somebody's."""
    registry.override = open_to(UNSEEN)
    assert await reader.read(UNSEEN) == ALL
    assert await reader.read() == NONE
    assert await reader.read(UNSEEN) == ALL


async def test_a_token_that_was_seen_to_be_nobodys_does(reader: Reader, registry: Registry) -> None:
    """Its server gave it to a client without a login."""
    registry.override = open_to(UNSEEN, None)
    reader.core.identities.given(UNSEEN.removeprefix("Bearer "), NOBODY)
    assert await reader.read(UNSEEN) == ALL
    registry.override = hang_up
    assert await reader.read() == ALL


async def test_what_a_registry_has_lost_is_for_who_may_read_the_repository(
    reader: Reader, registry: Registry, clock: SimpleNamespace
) -> None:
    """A 404 for what it had: the list of tags tells whether the client may still read there."""
    await reader.read()
    clock.now_s += 6 * MINUTE_S
    del registry.contents[f"/v2/library/alpine/blobs/{reader.blob}"]
    gone = await reader.flow(f"blobs/{reader.blob}")
    assert gone.response is not None
    assert gone.response.status_code == 404
    registry.contents["/v2/library/alpine/tags/list"] = (b"{}", "application/json")
    still = await reader.flow(f"blobs/{reader.blob}")
    assert still.response is not None
    assert still.response.status_code == 200


@pytest.mark.parametrize(
    ("page", "media_type"),
    [
        (b"log in here", "text/html"),
        (b"log in here", "application/octet-stream"),
        (BLOB[:-1], "application/octet-stream"),
    ],
)
async def test_a_login_page_proves_nothing(
    reader: Reader, registry: Registry, clock: SimpleNamespace, page: bytes, media_type: str
) -> None:
    """A front that sends strangers to one says 200, to whatever they ask for."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    clock.now_s += 1

    async def login_page(request: web.BaseRequest) -> web.StreamResponse | None:
        return None if request.headers.get("Authorization") else web.Response(body=page, headers=fields)

    fields = {"Content-Type": media_type}
    registry.override = login_page
    for _ in range(2):
        assert await reader.read() == (502, 502, 502)
    missing = (await reader.flow(f"blobs/{registry.blob(b'not stored yet')}")).response
    assert missing is not None
    assert missing.status_code == 502
    assert await reader.read() == (502, 502, 502)
    assert await reader.read(ALICE) == ALL


@pytest.mark.parametrize("code", [429, 503])
async def test_a_registry_that_fails_is_away(
    reader: Reader, registry: Registry, clock: SimpleNamespace, code: int
) -> None:
    """It refuses nobody by that, and proves nothing."""
    registry.override = open_to(ALICE)
    await reader.read(ALICE)
    registry.override = status(code)
    assert {403, code} >= set(await reader.read())
    clock.now_s += HOUR_S
    assert await reader.read(ALICE) == ALL


async def test_sharing_asks_nobody(configure: Callable[..., Core], ask: Ask, registry: Registry) -> None:
    """With PRIVATE_IMAGES=share what is stored is everybody's."""
    shared = Reader(configure(PRIVATE_IMAGES="share", ENABLE_MANIFEST_CACHE="true"), ask, registry)
    registry.override = open_to(ALICE)
    await shared.read(ALICE)
    registry.override = hang_up
    assert await shared.read() == ALL


def test_a_challenge_is_written_as_it_can_be_read() -> None:
    """Quotes and backslashes in a registry's words stay inside them; other schemes stay as they are."""
    told = access_questions.challenge_for(r'Bearer realm="https://a/\"t\\",error="x"', "team/app")
    assert told == r'Bearer realm="https://a/\"t\\",scope="repository:team/app:pull"'
    assert access_questions.challenge_for('Basic realm="a"', "team/app") == 'Basic realm="a"'


async def test_a_closed_store_remembers_nothing(reader: Reader) -> None:
    """And fails nobody."""
    reader.core.store.close()
    refusal = Answer(401, {"WWW-Authenticate": "Basic"}, b"", "https://quay.io", OpenedBy.NOBODY)
    reader.core.access.challenged(Host("quay.io"), refusal)
