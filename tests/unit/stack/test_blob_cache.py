"""Blobs: a hit is a file, a miss is one shared download, and every failure is the client's own."""

import asyncio
import os
import random
from collections.abc import Callable

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.engine.bodies import attached, detach
from regproxy.oci.digest import Digest
from regproxy.stack import blob_cache
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, exchange_of
from unit.stack.registry import Registry, status

BLOB = random.Random(7).randbytes(300_000)  # noqa: S311 - not a secret
DIGEST = Digest.of(BLOB)
PATH = f"/v2/library/alpine/blobs/{DIGEST}"

type Ask = Callable[..., http.HTTPFlow]


@pytest.fixture
async def cache(core: Core) -> BlobCache:
    return BlobCache(core)


async def body_of(flow: http.HTTPFlow) -> bytes:
    """Read the file body as the sender would."""
    body = attached(flow)
    if body is None:
        assert flow.response is not None
        return flow.response.raw_content or b""
    position, received = body.start, bytearray()
    while position < body.end:
        limit = body.end if body.released is None else min(body.end, await body.released(position))
        received += os.pread(body.fd, limit - position, position)
        position = limit
    detach(flow)
    return bytes(received)


def seen(flow: http.HTTPFlow) -> tuple[int | None, str]:
    """Return the status and what the cache did."""
    exchange = exchange_of(flow)
    assert exchange is not None
    return (flow.response.status_code if flow.response else None, str(exchange.cache_status))


async def settled(core: Core) -> None:
    """Wait until no download runs."""
    while core.store.running(DIGEST) is not None:  # noqa: ASYNC110 - the store tells readers only
        await asyncio.sleep(0.001)


@pytest.fixture
async def stored(cache: BlobCache, core: Core, ask: Ask, registry: Registry) -> BlobCache:
    """Return a cache that has the blob."""
    registry.blob(BLOB)
    flow = ask(core, PATH)
    await cache.request(flow)
    assert await body_of(flow) == BLOB
    await settled(core)
    registry.take_asked()
    return cache


async def test_a_miss_is_downloaded_and_a_hit_is_not(
    stored: BlobCache, core: Core, ask: Ask, registry: Registry
) -> None:
    """The second answer comes from the file; for another repository when the registry has said that it is there."""
    registry.blob(BLOB, "library/debian")
    for path in (PATH, PATH.replace("alpine", "debian")):
        flow = ask(core, path)
        await stored.request(flow)
        assert seen(flow) == (200, "HIT")
        assert await body_of(flow) == BLOB
    assert registry.methods() == ["HEAD"]


async def test_a_digest_alone_opens_nothing(stored: BlobCache, core: Core, ask: Ask, registry: Registry) -> None:
    """A repository without the blob does not give it, whoever else has it; the registry is asked each time."""
    for method in ("GET", "HEAD", "GET"):
        flow = ask(core, PATH.replace("alpine", "debian"), method, Range="bytes=0-9")
        await stored.request(flow)
        assert seen(flow) == (404, "")
        assert attached(flow) is None
    assert registry.methods() == ["HEAD", "HEAD", "HEAD"]


@pytest.mark.parametrize(
    ("fields", "code", "part", "content_range"),
    [
        ({}, 200, BLOB, None),
        ({"Range": "bytes=0-9"}, 206, BLOB[:10], f"bytes 0-9/{len(BLOB)}"),
        ({"Range": "bytes=100-"}, 206, BLOB[100:], f"bytes 100-{len(BLOB) - 1}/{len(BLOB)}"),
        ({"Range": "bytes=-5"}, 206, BLOB[-5:], f"bytes {len(BLOB) - 5}-{len(BLOB) - 1}/{len(BLOB)}"),
        ({"Range": "bytes=999999-"}, 416, b"", f"bytes */{len(BLOB)}"),
        ({"Range": "bytes=0-1,5-6"}, 200, BLOB, None),
        ({"Range": "bytes=0-9", "If_Range": f'"{DIGEST}"'}, 206, BLOB[:10], f"bytes 0-9/{len(BLOB)}"),
        ({"Range": "bytes=0-9", "If_Range": '"other"'}, 200, BLOB, None),
    ],
)
async def test_a_hit_is_answered_as_asked(
    *,
    stored: BlobCache,
    core: Core,
    ask: Ask,
    fields: dict[str, str],
    code: int,
    part: bytes,
    content_range: str | None,
) -> None:
    """Whole or in part, with every field that describes it; a HEAD describes the whole and sends nothing."""
    flow = ask(core, PATH, **fields)
    await stored.request(flow)

    assert flow.response is not None
    assert flow.response.status_code == code
    assert flow.response.headers.get("content-range") == content_range
    assert flow.response.headers["content-length"] == str(len(part))
    assert flow.response.headers["etag"] == f'"{DIGEST}"'
    assert flow.response.headers["docker-content-digest"] == str(DIGEST)
    assert flow.response.headers["accept-ranges"] == "bytes"
    assert flow.response.headers["content-type"] == "application/octet-stream"
    assert not flow.response.raw_content
    assert await body_of(flow) == part
    head = ask(core, PATH, "HEAD", **fields)
    await stored.request(head)
    assert head.response is not None
    assert (head.response.status_code, head.response.headers["content-length"]) == (200, str(len(BLOB)))
    assert attached(head) is None


async def test_a_head_of_what_is_not_stored_is_left_to_the_registry(cache: BlobCache, core: Core, ask: Ask) -> None:
    """No download is started by it."""
    flow = ask(core, PATH, "HEAD")

    await cache.request(flow)

    assert seen(flow) == (None, "MISS")
    assert core.store.running(DIGEST) is None


async def test_those_who_ask_while_it_comes_share_one_download(
    cache: BlobCache, core: Core, ask: Ask, registry: Registry
) -> None:
    """Ten clients, one GET; each has its headers before the registry has sent its last byte."""
    registry.blob(BLOB)
    gate = asyncio.Event()

    async def slowly(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(BLOB)
        await response.prepare(request)
        await response.write(BLOB[:100_000])
        await gate.wait()
        await response.write(BLOB[100_000:])
        return response

    registry.override = slowly
    flows = [ask(core, PATH) for _ in range(10)]
    await asyncio.gather(*(cache.request(flow) for flow in flows))
    assert {seen(flow) for flow in flows} == {(200, "MISS")}
    gate.set()

    assert set(await asyncio.gather(*(body_of(flow) for flow in flows))) == {BLOB}
    assert registry.methods() == ["GET"]
    await settled(core)


@pytest.mark.parametrize("code", [401, 403, 404, 429, 503])
async def test_a_refusal_is_the_clients_answer(
    cache: BlobCache, core: Core, ask: Ask, registry: Registry, code: int
) -> None:
    """With the registry's body and challenge, so that the client can log in."""
    registry.override = status(code)
    flow = ask(core, PATH)

    await cache.request(flow)

    assert seen(flow) == (code, "MISS")
    assert flow.response is not None
    assert flow.response.raw_content == b'{"errors":[]}'
    assert flow.response.headers["www-authenticate"].startswith("Bearer")
    exchange = exchange_of(flow)
    assert exchange is not None
    assert exchange.error is not None


async def test_what_was_refused_to_another_is_asked_for_again(
    cache: BlobCache, core: Core, ask: Ask, registry: Registry
) -> None:
    """A client that may see it does not suffer from one that may not and came first."""
    registry.blob(BLOB)
    gate = asyncio.Event()

    async def only_alice(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.headers["Authorization"] == "Bearer alice":
            return None
        await gate.wait()
        return web.Response(status=403)

    registry.override = only_alice
    bob, alice = ask(core, PATH, Authorization="Bearer bob"), ask(core, PATH, Authorization="Bearer alice")
    asking = [asyncio.ensure_future(cache.request(flow)) for flow in (bob, alice)]
    while registry.asked == []:  # noqa: ASYNC110 - until bob's request is there
        await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*asking)

    assert (seen(bob)[0], seen(alice)[0]) == (403, 200)
    assert await body_of(alice) == BLOB
    await settled(core)


async def test_a_registry_that_cannot_be_used_is_a_502(
    cache: BlobCache, core: Core, ask: Ask, registry: Registry
) -> None:
    """An answer in the registry's form, with the reason."""

    async def encoded(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})

    registry.override = encoded
    flow = ask(core, PATH)
    await cache.request(flow)

    assert seen(flow)[0] == 502
    assert flow.response is not None
    assert b"encodes its answer" in (flow.response.raw_content or b"")


async def test_other_content_is_cut_and_not_stored(cache: BlobCache, core: Core, ask: Ask, registry: Registry) -> None:
    """The reader learns before it has the end; the next client gets the right one."""
    registry.contents[PATH] = (b"y" * len(BLOB), "application/octet-stream")
    flow = ask(core, PATH)
    await cache.request(flow)
    with pytest.raises(Exception, match="hashes to"):
        await body_of(flow)
    detach(flow)
    await settled(core)
    registry.blob(BLOB)

    again = ask(core, PATH)
    await cache.request(again)

    assert await body_of(again) == BLOB
    await settled(core)


async def test_a_store_that_fails_leaves_the_request_to_the_registry(
    cache: BlobCache, core: Core, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """It is bypassed and said so."""
    core.store.close()
    flow = ask(core, PATH)

    await cache.request(flow)

    assert seen(flow) == (None, "BYPASS")
    assert "the cache does not work" in caplog.text


async def test_a_range_far_ahead_of_a_download_is_left_to_the_registry(
    cache: BlobCache, core: Core, ask: Ask, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads the end first need not wait for all that lies before it."""
    monkeypatch.setattr(blob_cache, "FAR_AHEAD_BYTES", 200_000)
    gate = asyncio.Event()

    async def slowly(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(BLOB)
        await response.prepare(request)
        await gate.wait()
        await response.write(BLOB)
        return response

    registry.override = slowly
    near, far = ask(core, PATH, Range="bytes=150000-150009"), ask(core, PATH, Range="bytes=-10")
    await cache.request(near)
    await cache.request(far)
    gate.set()

    assert seen(far) == (None, "BYPASS")
    assert await body_of(near) == BLOB[150_000:150_010]
    await settled(core)


async def test_what_is_bypassed_or_answered_is_left_alone(cache: BlobCache, core: Core, ask: Ask) -> None:
    """Nor are uploads the cache's business."""
    bypassed, answered, upload = ask(core, PATH), ask(core, PATH), ask(core, "/v2/a/blobs/uploads/", "PUT")
    exchange = exchange_of(bypassed)
    assert exchange is not None
    exchange.cache_status = CacheStatus.BYPASS
    answered.response = http.Response.make(418)

    for flow in (bypassed, answered, upload):
        await cache.request(flow)

    assert bypassed.response is None
    assert answered.response.status_code == 418
    assert core.store.running(DIGEST) is None
