"""Whose login opened an answer, told with the answer and with a blob's content."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from regproxy.oci.digest import Digest
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.blobs import fill
from regproxy.origin.credential_helper import CredentialHelpers
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.ecr import EcrLogins
from regproxy.origin.errors import UpstreamRefused
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.credentials import Credential, basic_header
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.openers import OpenedBy
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url
from regproxy.store.content import Store
from unit.origin.conftest import OPTIONS, Serve
from unit.origin.token_world import World

ALICE = Credential("registry.test", None, "alice", "wonderland-7")
CONTENT = Digest.of(b"content")
OWN = (("Authorization", "Basic Ym9iOmJ1aWxkZXI="),)

type Build = Callable[..., Awaitable[World]]


def source(*credentials: Credential) -> CredentialSource:
    """Return what has these credentials and no other."""
    return CredentialSource(credentials, None, CredentialHelpers({}), EcrLogins())


@pytest.fixture
async def build(serve: Serve) -> AsyncIterator[Build]:
    """Yield what makes a registry that is its own token server, and a client with the operator's credentials."""
    async with AsyncExitStack() as stack:

        async def make(*credentials: Credential) -> World:
            mappings = (UpstreamMapping("registry.test", "127.0.0.1"),)
            upstream = AuthorizedUpstream(dataclasses.replace(OPTIONS, mappings=mappings), source(*credentials))
            upstream.open()
            stack.push_async_callback(upstream.close)
            world = World(upstream, Url("http", "registry.test", 1, "/"))
            port, realm_port = await serve(world.registry_answers), await serve(world.realm_answers)
            world.registry = Url("http", "registry.test", port, "/")
            world.challenge = f'Bearer realm="http://registry.test:{realm_port}/token"'
            return world

        yield make


async def opened_by(world: World) -> list[OpenedBy]:
    """Read twice without the client's credentials: the first time the registry is not known yet."""
    request = UpstreamRequest("GET", dataclasses.replace(world.registry, target="/v2/a/x"), (), access=Access("a"))
    answers = [await world.upstream.ask(request, 1000) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    return [answer.opened_by for answer in answers]


async def test_an_anonymous_token_is_nobodys(build: Build) -> None:
    """What it opens is public."""
    assert await opened_by(await build()) == [OpenedBy.NOBODY] * 2


async def test_the_operators_token_is_his(build: Build) -> None:
    """From the first answer on."""
    assert await opened_by(await build(ALICE)) == [OpenedBy.OPERATOR] * 2


async def test_the_operators_password_is_his(build: Build) -> None:
    """Where the registry takes it without a token."""
    world = await build(ALICE)
    world.taken.add(basic_header(ALICE))

    assert await opened_by(world) == [OpenedBy.OPERATOR] * 2


async def test_a_login_that_is_refused_opens_nothing(build: Build) -> None:
    """The token server does not know alice; the registry is open to anybody with a token."""
    world = await build(ALICE)

    async def refuse_alice(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=401) if request.headers.get("Authorization") else None

    world.realm_speaks = refuse_alice

    assert await opened_by(world) == [OpenedBy.NOBODY] * 2


async def test_what_a_request_says_of_its_own_authorization_is_passed_on(build: Build) -> None:
    """Only who made the request knows whose it is."""
    world = await build(ALICE)
    world.taken.add(OWN[0][1])
    url = dataclasses.replace(world.registry, target="/v2/a/x")

    answer = await world.upstream.ask(UpstreamRequest("GET", url, OWN, opened_by=OpenedBy.CLIENT), 1000)

    assert (answer.status, answer.opened_by) == (200, OpenedBy.CLIENT)


@pytest.mark.parametrize(
    ("credentials", "own", "expected"),
    [((), False, OpenedBy.NOBODY), ((ALICE,), False, OpenedBy.OPERATOR), ((ALICE,), True, OpenedBy.CLIENT)],
)
async def test_a_blobs_opener_is_told_before_its_size(
    build: Build, tmp_path: Path, credentials: tuple[Credential, ...], own: bool, expected: OpenedBy
) -> None:
    """So that nobody else is served before it is known."""
    world = await build(*credentials)
    world.taken.add(OWN[0][1])
    url = dataclasses.replace(world.registry, target="/v2/a/x")
    request = (
        UpstreamRequest("GET", url, OWN, opened_by=OpenedBy.CLIENT)
        if own
        else UpstreamRequest("GET", url, (), access=Access("a"))
    )
    store = Store(tmp_path / "cache", 64 << 20, 3600.0, 0)
    store.open()
    told: list[tuple[OpenedBy, int | None]] = []
    ended = asyncio.Event()

    async def fetch(ingest: object) -> None:
        assert hasattr(ingest, "size_bytes")
        await fill(ingest, request, world.upstream, on_opened=lambda by: told.append((by, ingest.size_bytes)))  # type: ignore[arg-type]
        ended.set()

    store.join_or_start(CONTENT, fetch)
    await asyncio.wait_for(ended.wait(), 30)
    store.close()

    assert told == [(expected, None)]


async def test_nobody_opens_a_refused_blob(build: Build) -> None:
    """A refusal has no content."""
    world = await build()
    world.challenge = 'Basic realm="closed"'
    url = dataclasses.replace(world.registry, target="/v2/a/x")
    told: list[OpenedBy] = []

    class Untouched:
        size_bytes, etag = None, None

        def missing_from(self) -> int:
            return 0

        def missing(self) -> tuple[tuple[int, int], ...]:
            return ()

    with pytest.raises(UpstreamRefused):
        await fill(
            Untouched(),  # type: ignore[arg-type]
            UpstreamRequest("GET", url, (), access=Access("a")),
            world.upstream,
            on_opened=told.append,
        )

    assert told == []
