"""Fills the growing file of a blob from its registry, and resumes when the upstream breaks.

Every attempt asks the registry anew, because the storage URL it redirects to is signed for minutes; what has arrived
is kept and only the rest is asked for (RFC 9110 section 14.2, with If-Range when the validator is strong).
Verification and storing are the ingest's.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

import aiohttp

from regproxy.oci.ranges import parse_content_range
from regproxy.origin.client import Upstream, UpstreamRequest, read_body
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamRefused, UpstreamUnavailable
from regproxy.policy.freshness import Status, stale_allowed

logger = logging.getLogger(__name__)

RESUME_BUDGET_S = 60.0
"""How long a broken transfer is retried without a byte of progress: a registry's restart takes seconds, clients give up
after minutes.
"""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 3.0
FRUITLESS_ATTEMPTS = 2
"""Attempts to get a first byte: the client has no headers yet and is better told soon."""

REFUSAL_LIMIT_BYTES = 64 * 1024
"""Error bodies are a few hundred bytes of JSON; more is not passed on."""


class Sink(Protocol):
    """The growing file; `regproxy.store.ingest.Ingest` is one."""

    size_bytes: int | None
    etag: str | None

    def missing_from(self) -> int:
        """Return the offset of the first byte that has not arrived."""
        ...

    async def begin(self, size_bytes: int | None, etag: str | None) -> None:
        """Promise the size."""
        ...

    async def write(self, chunks: Sequence[bytes]) -> None:
        """Append at `missing_from()`."""
        ...

    async def finish(self) -> None:
        """All bytes have arrived: verify and store."""
        ...


class _Broken(Exception):  # noqa: N818 - the state of a transfer
    """The transfer ended early; it may be resumed."""


async def fill(sink: Sink, request: UpstreamRequest, upstream: Upstream) -> None:
    """Fetch a blob into `sink` and finish it.

    Raises `UpstreamRefused` when the registry answers without the content, `UpstreamUnavailable` when it cannot be
    had in time, and what the sink raises.
    """
    loop = asyncio.get_running_loop()
    progress_at_s, progress_bytes, attempts, pause_s = loop.time(), sink.missing_from(), 0, FIRST_PAUSE_S
    complete = _is_complete(sink)
    while not complete:
        attempts += 1
        try:
            await _attempt(sink, request, upstream)
            complete = True
            continue
        except (UpstreamUnavailable, _Broken) as error:
            failure = error
        if sink.missing_from() > progress_bytes:
            progress_at_s, progress_bytes, attempts, pause_s = loop.time(), sink.missing_from(), 0, FIRST_PAUSE_S
        out_of_time = loop.time() - progress_at_s > RESUME_BUDGET_S
        if out_of_time or (progress_bytes == 0 and attempts >= FRUITLESS_ATTEMPTS):
            raise _as_unavailable(failure) from failure
        logger.info("%s after %d bytes; trying again", failure, progress_bytes)
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
    await sink.finish()


def _is_complete(sink: Sink) -> bool:
    return sink.size_bytes is not None and sink.missing_from() >= sink.size_bytes


async def _attempt(sink: Sink, request: UpstreamRequest, upstream: Upstream) -> None:
    offset = sink.missing_from()
    ranged = UpstreamRequest(request.method, request.url, request.headers + _range_fields(offset, sink.etag))
    async with upstream.send(ranged) as response:
        skip = await _accept(sink, response, offset)
        await _copy(sink, response, skip)


def _range_fields(offset: int, etag: str | None) -> tuple[tuple[str, str], ...]:
    if offset == 0:
        return ()
    fields = [("Range", f"bytes={offset}-")]
    # RFC 9110 section 13.1.5: "A client MUST NOT generate an If-Range header field containing an entity tag that is marked as weak."
    if etag is not None and not etag.startswith("W/"):
        fields.append(("If-Range", etag))
    return tuple(fields)


async def _accept(sink: Sink, response: aiohttp.ClientResponse, offset: int) -> int:
    """Check the answer's head and return how many bytes of its body have arrived before."""
    etag = response.headers.get("ETag")
    match response.status:
        case 200:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise UpstreamUnavailable(
                    f"{response.url.host} encodes the blob, which then cannot match its digest", Status(502)
                )
            await sink.begin(response.content_length, etag)
            return offset
        case 206 if offset > 0:
            try:
                sent = parse_content_range(response.headers.get("Content-Range", ""))
            except ValueError as error:
                raise UpstreamUnavailable(
                    f"{response.url.host} sent a part without saying which: {error}", Status(502)
                ) from error
            if sent.start != offset:
                raise UpstreamUnavailable(
                    f"{response.url.host} sent bytes from {sent.start} when asked from {offset}", Status(502)
                )
            await sink.begin(sent.size, etag)
            return 0
        case status:
            refused = Answer(status, response.headers, await _refusal_body(response), str(response.url.origin()))
            if offset > 0 and (stale_allowed(Status(status)) or status in (401, 403)):
                # Mid-way, a signature or token that ran out is as passing as a restart: the next attempt asks the registry anew.
                raise _Broken(f"{refused.origin} answered {status}")
            raise UpstreamRefused(refused)


async def _refusal_body(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await read_body(response, REFUSAL_LIMIT_BYTES)
    except (AnswerTooLarge, aiohttp.ClientError, TimeoutError):
        return b""  # the status is what counts


async def _copy(sink: Sink, response: aiohttp.ClientResponse, skip: int) -> None:
    """Write the body as it arrives; aiohttp goes on reading the network while a write is under way.

    One write takes all that was read meanwhile: few large ones when the network is fast, prompt small ones when it is
    slow.
    """
    try:
        async for chunk in response.content.iter_any():
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            await sink.write([chunk[skip:]])
            skip = 0
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _Broken(f"{response.url.host} broke the transfer ({type(error).__name__})") from error
    if not _is_complete(sink) and sink.size_bytes is not None:
        raise _Broken(f"{response.url.host} ended the transfer early")


def _as_unavailable(failure: UpstreamUnavailable | _Broken) -> UpstreamUnavailable:
    return failure if isinstance(failure, UpstreamUnavailable) else UpstreamUnavailable(str(failure), Status(502))
