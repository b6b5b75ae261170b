"""A large blob over several connections: what is asked for, and what happens when the upstream does not play along."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from regproxy.origin.blobs import SINGLE, Connections, fill
from regproxy.origin.client import Upstream, UpstreamOptions
from regproxy.origin.errors import UpstreamRefused
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.interception import HostPattern
from regproxy.policy.redirects import Url

BLOB = bytes(range(256)) * 1600
PART_BYTES = 100_000
READ_AHEAD_BYTES = 10_000
"""What the first connection may have read of the next part before it sees that it is there."""
FOUR = Connections(most=4, least_part_bytes=PART_BYTES)


class MemorySink:
    """A growing file in memory, with the store's contract."""

    def __init__(self) -> None:
        self.size_bytes: int | None = None
        self.etag: str | None = None
        self.body = bytearray()
        self.filled = bytearray()
        self.written_bytes = 0
        self.finished = False

    def missing_from(self) -> int:
        """Return the end of the prefix."""
        hole = self.filled.find(0)
        return len(self.filled) if hole < 0 else hole

    def missing(self) -> tuple[tuple[int, int], ...]:
        """Return the holes."""
        holes, position = [], self.filled.find(0)
        while position >= 0:
            end = self.filled.find(1, position)
            end = len(self.filled) if end < 0 else end
            holes.append((position, end))
            position = self.filled.find(0, end)
        return tuple(holes)

    async def begin(self, size_bytes: int | None, etag: str | None) -> None:
        """Take the size."""
        if self.size_bytes is None and size_bytes is not None:
            self.size_bytes, self.etag = size_bytes, etag
            self.body, self.filled = bytearray(size_bytes), bytearray(size_bytes)

    async def write_at(self, offset: int, chunks: Sequence[bytes]) -> None:
        """Write into place."""
        data = b"".join(chunks)
        self.written_bytes += len(data)
        self.body[offset : offset + len(data)] = data
        self.filled[offset : offset + len(data)] = b"\1" * len(data)
        await asyncio.sleep(0)

    async def finish(self) -> None:
        """Check that everything is there."""
        assert self.missing() == ()
        self.finished = True


class Registry:
    """A real HTTP server with one blob; `answer` may be replaced."""

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        self.slow_whole = False
        self.whole_sent_bytes = 0
        self.parts_sent = asyncio.Semaphore(0)
        self.answer: Callable[[web.Request], web.StreamResponse | None] = lambda _: None
        self.url = Url("http", "127.0.0.1", 1, "/")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer with the blob or the part that is asked for."""
        self.ranges.append(request.headers.get("Range"))
        if self.slow_whole and request.headers.get("Range") is None:
            return await self._send_slowly(request)
        special = self.answer(request)
        if special is not None:
            return special
        asked = request.http_range
        part = BLOB[asked]
        if asked.start is None and asked.stop is None:
            return web.Response(body=BLOB, headers={"ETag": '"x"'})
        start = asked.start or 0
        self.parts_sent.release()
        return web.Response(
            status=206,
            body=part,
            headers={"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(BLOB)}", "ETag": '"x"'},
        )

    async def _send_slowly(self, request: web.Request) -> web.StreamResponse:
        """Send the whole blob, its first part only after three others have been asked for; stop when nobody reads."""
        response = web.StreamResponse(headers={"Content-Length": str(len(BLOB))})
        await response.prepare(request)
        for _ in range(3):
            await self.parts_sent.acquire()
        with contextlib.suppress(ConnectionError):
            for position in range(0, len(BLOB), 1000):
                await response.write(BLOB[position : position + 1000])
                self.whole_sent_bytes = position + 1000
                await asyncio.sleep(0)
        return response


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """Start the server on a free port."""
    served = Registry()
    app = web.Application()
    app.router.add_get("/{path:.*}", served.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = Url("http", "127.0.0.1", runner.addresses[0][1], "/v2/a/blobs/b")
    yield served
    await runner.cleanup()


@asynccontextmanager
async def client() -> AsyncIterator[Upstream]:
    """Yield an upstream client that may reach loopback."""
    upstream = Upstream(
        UpstreamOptions(
            verify_tls=True,
            ca_file=None,
            mappings=(),
            listed=(HostPattern.parse("127.0.0.1"),),
            ipv4_only=True,
            connect_timeout_s=5,
            read_timeout_s=5,
        )
    )
    upstream.open()
    try:
        yield upstream
    finally:
        await upstream.close()


async def fetched(registry: Registry, connections: Connections) -> MemorySink:
    """Fill a sink and return it."""
    sink = MemorySink()
    async with client() as upstream:
        await fill(sink, UpstreamRequest("GET", registry.url, ()), upstream, connections)
    return sink


async def test_a_large_blob_is_asked_for_in_parts(registry: Registry) -> None:
    """The first request learns the size; three more ask for the rest, each for its own part."""
    sink = await fetched(registry, FOUR)

    assert bytes(sink.body) == BLOB
    assert sink.finished
    size = -(-len(BLOB) // 4)
    expected = {f"bytes={first}-{min(len(BLOB), first + size) - 1}" for first in range(size, len(BLOB), size)}
    assert set(registry.ranges) == {None, *expected}
    assert len(registry.ranges) == 4


async def test_the_first_connection_ends_where_the_others_parts_begin(registry: Registry) -> None:
    """What they have fetched already is not fetched again, however slow the first connection is."""
    registry.slow_whole = True
    sink = await fetched(registry, FOUR)

    assert bytes(sink.body) == BLOB
    assert sink.written_bytes < len(BLOB) + READ_AHEAD_BYTES


async def test_a_blob_of_less_than_two_parts_takes_one_connection(registry: Registry) -> None:
    """Round trips would cost more than they bring."""
    sink = await fetched(registry, Connections(most=4, least_part_bytes=len(BLOB) // 2 + 1))

    assert bytes(sink.body) == BLOB
    assert registry.ranges == [None]


async def test_one_connection_is_enough_when_only_one_is_allowed(registry: Registry) -> None:
    """`DOWNLOAD_CONNECTIONS=1` is the plain download."""
    sink = await fetched(registry, SINGLE)

    assert bytes(sink.body) == BLOB
    assert registry.ranges == [None]


async def test_an_upstream_that_ignores_ranges_is_read_over_one_connection(registry: Registry) -> None:
    """The answers to the others are dropped, not written over what is there."""
    registry.answer = lambda _: web.Response(body=BLOB)
    sink = await fetched(registry, FOUR)

    assert bytes(sink.body) == BLOB
    assert sink.finished


@pytest.mark.parametrize("status", [403, 404, 500, 503])
async def test_a_part_that_is_refused_is_fetched_by_the_first_connection(registry: Registry, status: int) -> None:
    """A storage that answers one of the requests with an error does not fail the pull."""
    refused: list[str] = []

    def refuse_once(request: web.Request) -> web.StreamResponse | None:
        field = request.headers.get("Range")
        if field is not None and not refused:
            refused.append(field)
            return web.Response(status=status)
        return None

    registry.answer = refuse_once
    sink = await fetched(registry, FOUR)

    assert bytes(sink.body) == BLOB
    assert refused


async def test_a_refusal_of_the_first_request_is_the_answer(registry: Registry) -> None:
    """Nothing else is asked."""
    registry.answer = lambda _: web.Response(status=404, text="no such blob")
    with pytest.raises(UpstreamRefused) as refusal:
        await fetched(registry, FOUR)

    assert refusal.value.answer.status == 404
    assert refusal.value.answer.body == b"no such blob"
    assert registry.ranges == [None]


async def test_a_part_that_lies_about_where_it_begins_is_not_written(registry: Registry) -> None:
    """The bytes are asked for again."""
    lies: list[str] = []

    def lie_once(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Range") is not None and not lies:
            lies.append("lied")
            return web.Response(status=206, body=b"x" * 10, headers={"Content-Range": f"bytes 0-9/{len(BLOB)}"})
        return None

    registry.answer = lie_once
    sink = await fetched(registry, FOUR)

    assert bytes(sink.body) == BLOB
    assert lies


@given(start=st.integers(0, 10**9), length=st.integers(1, 10**9), most=st.integers(1, 64), least=st.integers(1, 10**8))
def test_the_parts_cover_the_hole_in_order_and_none_is_too_small(
    start: int, length: int, most: int, least: int
) -> None:
    """No byte is asked for twice or forgotten, and no more connections are used than allowed."""
    parts = Connections(most, least).split(start, start + length)

    assert [first for first, _ in parts] == [start, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == start + length
    assert len(parts) <= most
    assert len(parts) == 1 or length // len(parts) >= least - len(parts)
