"""A client's own login is refused, and the proxy's takes its place where it may."""

import dataclasses

import pytest
from aiohttp import web

from regproxy.origin.errors import Answer
from regproxy.origin.logins import Logins
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.tokens import Tokens
from regproxy.origin.trace import Trace
from regproxy.policy.credentials import Credential, basic_header
from regproxy.policy.openers import OpenedBy
from regproxy.policy.realms import Access
from unit.origin.test_opened_by import ALICE, Build, build, source
from unit.origin.token_world import Speak, World

__all__ = ["build"]

OWN = "Bearer opaque-of-bob"
OTHERS = Credential("registry.test", None, "alice", "wonderland-7", path="b")


async def ask(world: World, *, fallback: bool = True, own: str = OWN, by: OpenedBy = OpenedBy.CLIENT) -> Answer:
    """Ask with a client's own Authorization."""
    url = dataclasses.replace(world.registry, target="/v2/a/x")
    is_anonymous = by is OpenedBy.NOBODY
    request = UpstreamRequest("GET", url, (("Authorization", own),), Trace(), opened_by=by, is_anonymous=is_anonymous)
    return await world.upstream.ask(dataclasses.replace(request, fallback=Access("a") if fallback else None), 1000)


def shown(world: World) -> list[str | None]:
    """Return what the registry was shown since the last call, tokens by whom they were given to."""
    values = [None if value is None else value.rpartition("/")[2] or "anonymous" for _, value in world.at_registry]
    world.at_registry.clear()
    return values


def refusing(status: int) -> Speak:
    """Return what refuses the client's own with a status."""

    async def speak(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=status, text="not you") if request.headers.get("Authorization") == OWN else None

    return speak


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_the_operators_login_follows_a_refusal(build: Build, status: int) -> None:
    """And comes first the next time, for a while."""
    world = await build(ALICE)
    world.registry_speaks = refusing(status) if status != 401 else None

    first = await ask(world)
    before = shown(world)
    second = await ask(world)

    assert (first.status, first.opened_by) == (second.status, second.opened_by) == (200, OpenedBy.OPERATOR)
    assert (before[0], before[-1]) == (OWN, "alice")
    assert shown(world) == ["alice"]


@pytest.mark.parametrize("status", [404, 500, 200])
async def test_another_answer_is_the_answer(build: Build, status: int) -> None:
    """What is not there, or fails, has nothing to do with the login."""
    world = await build(ALICE)
    world.registry_speaks = refusing(status)

    answer = await ask(world)

    assert (answer.status, answer.body, answer.opened_by) == (status, b"not you", OpenedBy.CLIENT)
    assert shown(world) == [OWN]


@pytest.mark.parametrize("credentials", [(), (OTHERS,)], ids=["none", "of other repositories"])
async def test_without_a_login_of_the_operator_the_refusal_stands(
    build: Build, credentials: tuple[Credential, ...]
) -> None:
    """Nobody asks for an anonymous token either: the client could have had one."""
    world = await build(*credentials)

    assert (await ask(world)).status == 401
    assert shown(world) == [OWN]
    assert world.at_realm == []


async def test_an_anonymous_token_that_has_ended_is_replaced_by_another(build: Build) -> None:
    """Nobody's for nobody's."""
    world = await build()

    answer = await ask(world, by=OpenedBy.NOBODY)

    assert (answer.status, answer.opened_by) == (200, OpenedBy.NOBODY)
    assert [asked.authorization for asked in world.at_realm] == [None]


async def test_a_quota_is_not_evaded_by_another_anonymous_token(build: Build) -> None:
    """It would be counted on the same address."""
    world = await build()
    world.registry_speaks = refusing(429)

    assert (await ask(world, by=OpenedBy.NOBODY)).status == 429
    assert world.at_realm == []


async def test_where_it_may_not_follow_it_does_not(build: Build) -> None:
    """A real login's refusal is the answer."""
    world = await build(ALICE)

    answer = await ask(world, fallback=False)

    assert (answer.status, answer.opened_by) == (401, OpenedBy.CLIENT)
    assert shown(world) == [OWN]


async def test_if_the_operators_opens_nothing_the_client_gets_its_own_answer(build: Build) -> None:
    """With its body and its challenge; the second refusal is nobody's business."""
    world = await build(ALICE)
    world.registry_speaks = refusing(403)

    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=403)

    world.realm_speaks = refuse

    answer = await ask(world)

    assert (answer.status, answer.body, answer.opened_by) == (403, b"not you", OpenedBy.CLIENT)


async def test_a_token_server_that_is_away_leaves_the_clients_answer(build: Build) -> None:
    """Not a 502 in place of a 401."""
    world = await build(ALICE)

    async def fail(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=503)

    world.realm_speaks = fail

    assert (await ask(world)).status == 401


async def test_a_login_at_the_token_server_is_learnt_of_with_the_refusal(build: Build) -> None:
    """Nothing was known of the registry before."""
    world = await build()
    realm_port = int(world.challenge.rpartition(":")[2].partition("/")[0])
    at_realm = Credential("registry.test", realm_port, "alice", "wonderland-7")
    world.upstream.logins = Logins(Tokens(world.upstream), source(at_realm))

    assert (await ask(world)).opened_by is OpenedBy.OPERATOR


async def test_the_trace_says_whose_login_it_was(build: Build) -> None:
    """By user and host, for the access log."""
    world = await build(ALICE)
    world.taken.add(basic_header(ALICE))
    told = []
    for fallback in (True, False):
        trace = Trace()
        url = dataclasses.replace(world.registry, target="/v2/a/x")
        request = UpstreamRequest(
            "GET",
            url,
            (("Authorization", OWN),),
            trace,
            fallback=Access("a") if fallback else None,
            opened_by=OpenedBy.CLIENT,
        )
        await world.upstream.ask(request, 1000)
        told.append(trace.opener)

    assert told == ["operator:alice@registry.test", "client"]


async def test_what_storage_refuses_is_no_refusal_of_the_registry(build: Build) -> None:
    """The registry took the client's login, and sent it on."""
    world = await build(ALICE)
    storage = world.challenge.partition('"')[2].partition("/token")[0]

    async def redirect(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{storage}/blob"})

    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=429, text="slower")

    world.registry_speaks, world.realm_speaks = redirect, refuse

    answer = await ask(world)

    assert (answer.status, answer.opened_by) == (429, OpenedBy.CLIENT)
    assert shown(world) == [OWN]
