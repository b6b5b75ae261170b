"""One request for a part of a blob, its answer checked and written into place."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import aiohttp

from regproxy.oci.ranges import parse_content_range
from regproxy.origin.answer_bodies import is_encoded, read_body
from regproxy.origin.client import Response, Upstream
from regproxy.origin.errors import (
    Answer,
    AnswerEncoded,
    AnswerTooLarge,
    AnswerUnusable,
    UpstreamRefused,
    UpstreamUnavailable,
)
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.sink import Sink
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.policy.openers import OpenedBy

REFUSAL_LIMIT_BYTES = 64 * 1024
"""Error bodies are a few hundred bytes of JSON; more is not passed on."""


class Broken(Exception):  # noqa: N818 - the state of a transfer
    """The transfer ended early; what is missing may be asked for again."""

    passing = True


class RangeIgnored(Broken):
    """The upstream sent the whole blob when asked for a part."""


type OnOpened = Callable[[OpenedBy], None]
"""Called with whose login opened the content, before the sink hears of it."""


class OnSize(Protocol):
    """Called when an answer's head has told the size."""

    def __call__(self, start: int, size_bytes: int, *, honours_ranges: bool) -> None:
        """`start` is where the answer's missing bytes begin."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `end` (exclusive) of a blob."""

    start: int
    end: int | None
    """None while the size is not known."""

    def fields(self, etag: str | None) -> tuple[tuple[str, str], ...]:
        """Return the request fields that ask for this part; none for the whole of an unknown blob."""
        if self.start == 0 and self.end is None:
            return ()
        last = "" if self.end is None else str(self.end - 1)
        fields = [("Range", f"bytes={self.start}-{last}")]
        # RFC 9110 section 13.1.5: an If-Range must not hold a weak entity tag.
        if etag is not None and not etag.startswith("W/"):
            fields.append(("If-Range", etag))
        return tuple(fields)


async def fetch_part(  # noqa: PLR0913 - three say what, three how
    sink: Sink,
    part: Part,
    request: UpstreamRequest,
    upstream: Upstream,
    *,
    on_size: OnSize | None = None,
    stop: Callable[[int], bool] = lambda _: False,
    accept_whole: bool = True,
    on_opened: OnOpened = lambda _: None,
) -> None:
    """Ask for a part and write it. An answer with the whole blob is written from its beginning.

    `stop` is asked before each write whether to end here. Raises `Broken` (`RangeIgnored` for the whole blob when
    `accept_whole` is off), `UpstreamUnavailable`, `UpstreamRefused`, and what the sink raises.
    """
    ranged = dataclasses.replace(request, headers=request.headers + part.fields(sink.etag))
    async with upstream.send(ranged) as response:
        if response.status == 200 and not accept_whole:
            raise RangeIgnored(f"{response.url.host} does not honour ranges")
        if response.status in (200, 206):
            on_opened(response.opened_by)
        position = await _accept(sink, response, part)
        if on_size is not None and sink.size_bytes is not None:
            honours_ranges = response.status == 206 or response.headers.get("Accept-Ranges", "bytes") != "none"
            on_size(max(position, part.start), sink.size_bytes, honours_ranges=honours_ranges)
        await _copy(sink, response, position, part.end, stop, partial(upstream.received, request))


async def _accept(sink: Sink, response: Response, part: Part) -> int:
    """Check the answer's head and return the offset of its first byte."""
    etag = response.headers.get("ETag")
    host = response.url.host
    match response.status:
        case 200:
            if is_encoded(response):
                raise AnswerEncoded(str(response.url.origin()))
            await sink.begin(response.content_length, etag)
            return 0
        case 206 if part.fields(None):
            try:
                sent = parse_content_range(response.headers.get("Content-Range", ""))
            except ValueError as error:
                raise UpstreamUnavailable(f"{host} sent a part but not which: {error}", Status(502)) from error
            await sink.begin(sent.size, etag)
            if sent.start != part.start:
                raise Broken(f"{host} sent bytes from {sent.start} when asked from {part.start}")
            return sent.start
        case status if status < 400:
            raise AnswerUnusable(str(response.url.origin()), status)
        case status:
            refused = Answer(
                status, response.headers, await _refusal_body(response), str(response.url.origin()), response.opened_by
            )
            # In the middle, a signature or token that ran out is as passing as a restart: the next request asks anew.
            if sink.missing_from() > 0 and (stale_allowed(Status(status)) or status in (401, 403)):
                raise Broken(f"{refused.origin} answered {status}")
            raise UpstreamRefused(refused)


async def _refusal_body(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await read_body(response, REFUSAL_LIMIT_BYTES)
    except (AnswerTooLarge, aiohttp.ClientError, TimeoutError):
        return b""  # the status is what counts


async def _copy(  # noqa: PLR0913, PLR0917 - from where, to where, and who wants to know
    sink: Sink,
    response: aiohttp.ClientResponse,
    position: int,
    end: int | None,
    stop: Callable[[int], bool],
    received: Callable[[int], None],
) -> None:
    """Write the body as it arrives; aiohttp goes on reading the network while a write is under way.

    One write takes all that was read meanwhile: few large ones when the network is fast, prompt small ones when it is
    slow.
    """
    host = response.url.host
    try:
        async for chunk in response.content.iter_any():
            if stop(position):
                return
            received(len(chunk))
            await sink.write_at(position, [chunk])
            position += len(chunk)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Broken(f"{host} broke the transfer ({type(error).__name__})") from error
    promised = sink.size_bytes if end is None or response.status == 200 else end
    if promised is not None and position < promised:
        raise Broken(f"{host} ended the transfer early")
