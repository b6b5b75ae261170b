"""Filling a blob: real servers that break, lie and refuse; the store's own growing file as the sink."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from regproxy.oci.digest import Digest
from regproxy.origin import blobs
from regproxy.origin.blobs import fill
from regproxy.origin.errors import UpstreamRefused, UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.freshness import Status
from regproxy.policy.redirects import Url
from regproxy.store.content import Store
from regproxy.store.errors import DigestMismatch, IngestFailed
from unit.origin.conftest import Open, Serve

BLOB = random.Random(7).randbytes(700_000)  # noqa: S311 - not a secret
DIGEST = Digest.of(BLOB)
ETAG = '"abc"'
HALF = 300_000

type Fill = Callable[..., Awaitable[None]]
type Break = Callable[..., Step]
type Step = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses between attempts short."""
    monkeypatch.setattr(blobs, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(blobs, "LONGEST_PAUSE_S", 0.002)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "cache", 64 << 20, 3600.0, 0)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
async def fill_from(store: Store, open_upstream: Open) -> Fill:
    """Return what fills the store's ingest of a digest from a port, and waits for its outcome."""
    upstream = open_upstream()

    async def run(port: int, digest: Digest = DIGEST, target: str = "/blob") -> None:
        request = UpstreamRequest("GET", Url("http", "127.0.0.1", port, target), (("Authorization", "Bearer t"),))
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def fetch(ingest: object) -> None:
            try:
                await fill(ingest, request, upstream)  # type: ignore[arg-type]
            except BaseException as error:
                outcome.set_exception(error)
                raise
            outcome.set_result(None)

        store.join_or_start(digest, fetch)
        await outcome

    return run


@pytest.fixture
def broken(store: Store) -> Break:
    """Return what makes steps that promise everything from where it was asked, send some of it, and break.

    The break comes when what was sent has arrived: aiohttp gives up what it has read but not handed out.
    """

    def make(size: int = HALF, etag: str | None = ETAG) -> Step:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            start = request.http_range.start or 0
            response = web.StreamResponse(status=206 if start else 200)
            if start:
                response.headers["Content-Range"] = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
            if etag is not None:
                response.headers["ETag"] = etag
            response.content_length = len(BLOB) - start
            await response.prepare(request)
            await response.write(BLOB[start : start + size])
            ingest = store.running(DIGEST)
            while ingest is not None and ingest.contiguous_bytes < start + size:  # noqa: ASYNC110 - told to readers only
                await asyncio.sleep(0.001)
            assert request.transport is not None
            request.transport.close()
            return response

        return answer

    return make


def stored(store: Store, digest: Digest = DIGEST) -> bytes | None:
    """Return what the store has of a digest."""
    content = store.open_content(digest)
    if content is None:
        return None
    with content:
        return os.pread(content.fileno(), content.size_bytes, 0)


class Script:
    """A handler that answers one request after the other as told; the last step goes on for ever."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.asked: list[dict[str, str | None]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take the next step."""
        self.asked.append({field: request.headers.get(field) for field in ("Range", "If-Range", "Authorization")})
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        return await step(request)

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [asked["Range"] for asked in self.asked]


def whole(body: bytes = BLOB, **fields: str) -> Step:
    """Answer 200 with everything, whatever was asked."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, headers={"ETag": ETAG} | {f.replace("_", "-"): v for f, v in fields.items()})

    return answer


async def rest(request: web.BaseRequest) -> web.StreamResponse:
    """Answer 206 with what was asked for."""
    start = request.http_range.start or 0
    fields = {"ETag": ETAG, "Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
    return web.Response(status=206, body=BLOB[start:], headers=fields)


def refused(status: int, text: str = "no") -> Step:
    """Answer with an error."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers={"X-Why": "because"})

    return answer


def part_of(start: int, size: str = str(len(BLOB)), body: bytes = BLOB) -> Step:
    """Answer 206 with another part than the one asked for."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        fields = {"Content-Range": f"bytes {start}-{len(body) - 1}/{size}"}
        return web.Response(status=206, body=body[start:], headers=fields)

    return answer


async def nameless_part(_request: web.BaseRequest) -> web.StreamResponse:
    """Answer 206 without Content-Range."""
    return web.Response(status=206, body=BLOB[HALF:])


async def chunked(request: web.BaseRequest) -> web.StreamResponse:
    """Answer without a length."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for start in range(0, len(BLOB), 100_000):
        await response.write(BLOB[start : start + 100_000])
    return response


async def test_a_whole_answer_is_stored(store: Store, serve: Serve, fill_from: Fill) -> None:
    """One request, without Range, with the authorization."""
    script = Script(whole())

    await fill_from(await serve(script))

    assert stored(store) == BLOB
    assert script.asked == [{"Range": None, "If-Range": None, "Authorization": "Bearer t"}]


@pytest.mark.parametrize("size", [0, 1])
async def test_the_smallest_blobs_are_blobs(store: Store, serve: Serve, fill_from: Fill, size: int) -> None:
    """An empty one too: it has a digest, and images refer to it."""
    body = b"x" * size

    await fill_from(await serve(Script(whole(body))), Digest.of(body))

    assert stored(store, Digest.of(body)) == body


async def test_a_body_without_length_is_stored_when_it_has_ended(store: Store, serve: Serve, fill_from: Fill) -> None:
    """The digest, not a length, says that it is whole."""
    await fill_from(await serve(Script(chunked)))

    assert stored(store) == BLOB


@pytest.mark.parametrize(
    ("etag", "if_range"), [(ETAG, ETAG), ('W/"abc"', None), (None, None)], ids=["strong", "weak", "none"]
)
async def test_a_broken_transfer_is_resumed(
    *, store: Store, serve: Serve, fill_from: Fill, broken: Break, etag: str | None, if_range: str | None
) -> None:
    """The rest is asked for, with If-Range when the validator is strong, and with the authorization again."""
    script = Script(broken(etag=etag), rest)

    await fill_from(await serve(script))

    assert stored(store) == BLOB
    assert script.asked[1:] == [
        {"Range": f"bytes={HALF}-{len(BLOB) - 1}", "If-Range": if_range, "Authorization": "Bearer t"}
    ]


async def test_a_transfer_may_break_many_times(store: Store, serve: Serve, fill_from: Fill, broken: Break) -> None:
    """As long as each attempt brings something."""
    script = Script(*[broken(100_000)] * 6, rest)

    await fill_from(await serve(script))

    assert stored(store) == BLOB
    assert len(script.asked) == 7


async def test_every_attempt_asks_the_registry_anew(store: Store, serve: Serve, fill_from: Fill, broken: Break) -> None:
    """Storage URLs are signed for minutes: the second attempt goes to where the registry points then."""
    first, second = Script(broken()), Script(rest)
    ports = [await serve(first), await serve(second)]
    asked: list[str | None] = []

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers.get("Range"))
        return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{ports[len(asked) - 1]}/signed"})

    await fill_from(await serve(registry))

    assert stored(store) == BLOB
    assert asked == [None, f"bytes={HALF}-{len(BLOB) - 1}"]
    assert second.asked[0] == {"Range": f"bytes={HALF}-{len(BLOB) - 1}", "If-Range": ETAG, "Authorization": None}


@pytest.mark.parametrize(
    "step",
    [
        refused(403),
        refused(401),
        refused(429),
        refused(500),
        refused(503),
        nameless_part,
        part_of(HALF + 1),
        part_of(0),
    ],
    ids=["403", "401", "429", "500", "503", "206 without a range", "206 from too far", "206 from the beginning"],
)
async def test_what_goes_wrong_in_the_middle_is_tried_again(
    store: Store, serve: Serve, fill_from: Fill, broken: Break, step: Step
) -> None:
    """A signature that ran out, a restart, a part that was not asked for: the next attempt may be right."""
    script = Script(broken(), step, rest)

    await fill_from(await serve(script))

    assert stored(store) == BLOB
    assert script.ranges == [None, *[f"bytes={HALF}-{len(BLOB) - 1}"] * 2]


async def test_the_whole_in_answer_to_a_range_is_taken_from_where_it_broke(
    store: Store, serve: Serve, fill_from: Fill, broken: Break
) -> None:
    """A server may ignore Range, or the entity has changed: what is there already is passed over."""
    script = Script(broken(), whole())

    await fill_from(await serve(script))

    assert stored(store) == BLOB
    assert len(script.asked) == 2


async def test_a_part_that_is_not_what_it_says_is_not_stored(
    store: Store, serve: Serve, fill_from: Fill, broken: Break
) -> None:
    """The digest finds a 206 whose bytes are others'; nothing is kept, and the next download starts from nothing."""

    async def lie(request: web.BaseRequest) -> web.StreamResponse:
        start = request.http_range.start or 0
        fields = {"ETag": ETAG, "Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
        return web.Response(status=206, body=b"x" * (len(BLOB) - start), headers=fields)

    script = Script(broken(), lie, whole())
    port = await serve(script)
    with pytest.raises(DigestMismatch):
        await fill_from(port)
    assert stored(store) is None
    await settled(store)

    await fill_from(port)

    assert stored(store) == BLOB
    assert script.ranges[-1] is None


async def settled(store: Store) -> None:
    """Wait until an ended ingest is out of the way."""
    while store.running(DIGEST) is not None:  # noqa: ASYNC110 - the store tells readers only
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 429, 500, 503])
async def test_a_refusal_at_the_beginning_is_the_registrys_answer(
    store: Store, serve: Serve, fill_from: Fill, status: int
) -> None:
    """Status, fields and body are kept for the client; there is no second attempt."""
    script = Script(refused(status, "denied, see the docs"))
    port = await serve(script)

    with pytest.raises(UpstreamRefused) as raised:
        await fill_from(port, target="/blob?sig=s3cret")

    answer = raised.value.answer
    assert (answer.status, answer.body, answer.headers["x-why"]) == (status, b"denied, see the docs", "because")
    assert str(raised.value) == f"http://127.0.0.1:{port} answered {status}"
    assert len(script.asked) == 1
    assert stored(store) is None


async def test_a_refusal_with_an_endless_body_is_a_refusal(serve: Serve, fill_from: Fill) -> None:
    """Only its status is passed on then."""
    with pytest.raises(UpstreamRefused) as raised:
        await fill_from(await serve(Script(refused(404, "x" * 100_000))))

    assert (raised.value.answer.status, raised.value.answer.body) == (404, b"")


async def test_a_404_in_the_middle_is_final(store: Store, serve: Serve, fill_from: Fill, broken: Break) -> None:
    """The blob is gone: more attempts would bring nothing."""
    script = Script(broken(), refused(404))

    with pytest.raises(UpstreamRefused):
        await fill_from(await serve(script))

    assert len(script.asked) == 2
    assert stored(store) is None


async def test_an_upstream_that_never_sends_a_byte_is_given_up(
    serve: Serve, fill_from: Fill, broken: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the budget, with several attempts: a restart takes seconds, and then the client had better know."""
    monkeypatch.setattr(blobs, "RESUME_BUDGET_S", 0.02)
    script = Script(broken(0))

    with pytest.raises(UpstreamUnavailable, match="broke the transfer") as raised:
        await fill_from(await serve(script))

    assert len(script.asked) > 2
    assert raised.value.failure == Status(502)


async def test_an_upstream_that_stays_away_is_given_up_in_the_end(
    store: Store, serve: Serve, fill_from: Fill, broken: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the budget without progress; what has arrived is there for the next time."""
    monkeypatch.setattr(blobs, "RESUME_BUDGET_S", 0.02)
    down = Script(broken(), refused(503))
    with pytest.raises(UpstreamUnavailable, match="answered 503"):
        await fill_from(await serve(down))
    assert len(down.asked) > 2
    await settled(store)
    up = Script(rest)

    await fill_from(await serve(up))

    assert stored(store) == BLOB
    assert up.ranges == [f"bytes={HALF}-{len(BLOB) - 1}"]


async def test_an_encoded_blob_is_not_taken(store: Store, serve: Serve, fill_from: Fill) -> None:
    """It could not match its digest; the message says why instead of calling the content damaged."""
    with pytest.raises(UpstreamUnavailable, match="encodes its answer"):
        await fill_from(await serve(Script(whole(Content_Encoding="gzip"))))

    assert stored(store) is None


async def test_what_follows_the_end_of_a_body_is_not_stored(
    store: Store, serve: Serve, fill_from: Fill, broken: Break
) -> None:
    """A 206 whose body goes on behind its range must not overwrite or extend the file."""

    async def too_long(request: web.BaseRequest) -> web.StreamResponse:
        start = request.http_range.start or 0
        fields = {"ETag": ETAG, "Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
        return web.Response(status=206, body=BLOB[start:] + b"more", headers=fields)

    with contextlib.suppress(IngestFailed):  # whether it is read at all depends on the network
        await fill_from(await serve(Script(broken(), too_long)))

    assert stored(store) in (None, BLOB)


async def test_other_content_under_the_digest_is_not_stored(store: Store, serve: Serve, fill_from: Fill) -> None:
    """Whatever the server calls it."""
    with pytest.raises(DigestMismatch):
        await fill_from(await serve(Script(whole(b"y" * len(BLOB)))))

    assert stored(store) is None
