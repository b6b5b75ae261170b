"""A tag's record says when the registry was asked: what it answers may be older than the moment in which it comes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.stack.core import Core
from regproxy.stack.turns import Turns
from regproxy.store.records import TagKey
from unit.stack.conftest import Configure
from unit.stack.registry import OCI, Registry
from unit.stack.test_manifests import HOUR_S, NEW, OLD, TAG, Puller

TAKES_S = 7.0


@pytest.fixture
async def puller(
    configure: Configure, ask: Callable[..., http.HTTPFlow], clock: SimpleNamespace, registry: Registry
) -> Puller:
    """Return one with a registry that takes its time over each answer."""

    async def take_long(_: web.BaseRequest) -> None:
        clock.now_s += TAKES_S

    registry.override = take_long
    settings = {"MANIFEST_CACHE_PRIMARY_REGEX": "", "MANIFEST_CACHE_SECONDARY_REGEX": ""}
    return Puller(configure(ENABLE_MANIFEST_CACHE="true", MANIFEST_CACHE_DEFAULT_TIME="1h", **settings), ask)


async def checked_at_s(core: Core, name: str) -> float:
    (record,) = await core.store.tag_records(name, "library/alpine", "3.20")
    return record.checked_at_s


async def same(puller: Puller, _: Registry) -> None:
    assert await puller.status(TAG) == "REVALIDATED"


async def moved(puller: Puller, registry: Registry) -> None:
    registry.tag("3.20", NEW)
    assert await puller.status(TAG) == "EXPIRED"


async def moved_for_a_head(puller: Puller, registry: Registry) -> None:
    registry.tag("3.20", NEW)
    assert await puller.status(TAG, "HEAD") == "EXPIRED"


@pytest.mark.parametrize(("later", "requests_before"), [(same, 0), (moved, 1), (moved_for_a_head, 0)])
async def test_it_is_the_time_of_the_request(
    puller: Puller,
    registry: Registry,
    clock: SimpleNamespace,
    later: Callable[[Puller, Registry], Awaitable[None]],
    requests_before: int,
) -> None:
    """Of the one that brought what is recorded: a GET, or a HEAD."""
    registry.tag("3.20", OLD)
    began_s = clock.now_s
    assert await puller.status(TAG) == "MISS"
    assert await checked_at_s(puller.core, registry.name) == began_s
    clock.now_s += HOUR_S
    began_s = clock.now_s
    await later(puller, registry)

    assert await checked_at_s(puller.core, registry.name) == began_s + requests_before * TAKES_S


async def test_what_another_worker_asked_before_this_request_came_counts(
    puller: Puller, registry: Registry, clock: SimpleNamespace
) -> None:
    """Its answer has come while this one waited for its turn."""
    registry.tag("3.20", OLD)
    await puller.pull(TAG)
    clock.now_s += HOUR_S
    store = puller.core.store

    class Elsewhere(Turns):
        """Another worker, whose request is under way when this one comes."""

        @asynccontextmanager
        async def turn(self, question: str, limit_s: float) -> AsyncIterator[bool]:
            del question, limit_s
            key = TagKey(registry.name, "library/alpine", "3.20", (OCI,))
            before = await store.tag_record(key)
            assert before is not None
            await store.put_tag_record(key, replace(before, checked_at_s=clock.now_s - TAKES_S))
            yield True

    puller.core.turns = Elsewhere()
    registry.take_asked()
    assert await puller.status(TAG) == "HIT"
    assert registry.take_asked() == []
