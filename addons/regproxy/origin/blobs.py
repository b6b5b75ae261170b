"""Fills the growing file of a blob from its registry, over several connections if it is large, and resumes it.

CDNs limit each connection, so a large blob is cut into as many parts as there are connections; the first request, which
learns the size, goes on with the first part. An upstream that does not honour ranges is read over one connection. Every
request asks the registry anew, because the storage URL it redirects to is signed for minutes; what has arrived is kept
and only what is missing is asked for (RFC 9110 section 14.2). Verification and storing are the ingest's.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial

from regproxy.origin.client import Upstream
from regproxy.origin.errors import UpstreamAway, UpstreamUnavailable
from regproxy.origin.parts import Broken, OnOpened, Part, RangeIgnored, fetch_part
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.sink import Sink
from regproxy.policy.freshness import Status

logger = logging.getLogger(__name__)

RESUME_BUDGET_S = 60.0
"""How long a broken transfer is retried without a byte of progress: a registry's restart takes seconds, clients give up
after minutes."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 3.0
FIRST_BYTE_BUDGET_S = 5.0
"""How long an upstream that gives no answer is tried: a restart may pass unseen, and a client without headers is told
soon."""


@dataclass(frozen=True, slots=True)
class Connections:
    """Over how many connections one blob is fetched."""

    most: int = 1
    least_part_bytes: int = 16 * 1024 * 1024
    """A part smaller than this is not worth a connection and its round trips."""

    def split(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cut a hole into parts of about the same size, in order; a small one stays whole."""
        count = max(1, min(self.most, (end - start) // self.least_part_bytes))
        size = max(1, -(-(end - start) // count))
        return [(first, min(end, first + size)) for first in range(start, end, size)]


SINGLE = Connections()


async def fill(
    sink: Sink,
    request: UpstreamRequest,
    upstream: Upstream,
    connections: Connections = SINGLE,
    on_opened: OnOpened = lambda _: None,
) -> None:
    """Fetch a blob into `sink` and finish it.

    `on_opened` is called before the sink hears of the content, and again for each further attempt.

    Raises `UpstreamRefused` when the registry answers without the content, `UpstreamUnavailable` when it cannot be had
    in time, and what the sink raises.
    """
    loop = asyncio.get_running_loop()
    filling = _Filling(sink, request, upstream, connections, on_opened)
    progress_at_s, missing_bytes, pause_s = loop.time(), _missing_bytes(sink), FIRST_PAUSE_S
    while True:
        try:
            await filling.attempt()
            break
        except (UpstreamUnavailable, Broken) as error:
            failure = error
        if _missing_bytes(sink) != missing_bytes:
            progress_at_s, missing_bytes, pause_s = loop.time(), _missing_bytes(sink), FIRST_PAUSE_S
        budget_s = FIRST_BYTE_BUDGET_S - _known_s(failure) if sink.size_bytes is None else RESUME_BUDGET_S
        wait_s = max(pause_s, _told_wait_s(failure))
        if not failure.passing or loop.time() + wait_s - progress_at_s > budget_s:
            raise _as_unavailable(failure) from failure
        logger.info("%s after %d bytes; trying again", failure, sink.missing_from())
        await asyncio.sleep(wait_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
    await sink.finish()


class _Filling:
    """One blob's parts: which of them are being fetched, and where the first request has to stop."""

    def __init__(
        self, sink: Sink, request: UpstreamRequest, upstream: Upstream, connections: Connections, on_opened: OnOpened
    ) -> None:
        self._sink = sink
        self._request = request
        self._upstream = upstream
        self._connections = connections
        self._on_opened = on_opened
        self._helpers: dict[asyncio.Task[None], tuple[int, int]] = {}

    async def attempt(self) -> None:
        """Fetch what is missing. Raises what `fetch_part` raises, for the part that was tried first."""
        try:
            while not await self._lead():
                pass
        finally:
            for helper in self._helpers:
                helper.cancel()
            await asyncio.gather(*self._helpers, return_exceptions=True)
            self._helpers.clear()

    async def _lead(self) -> bool:
        """Fetch the first hole that no helper is at work on; True when there is none."""
        start = self._sink.missing_from()
        size_bytes = self._sink.size_bytes
        if size_bytes is not None:
            holes = [hole for hole in self._sink.missing() if not self._is_taken(hole[0])]
            if not holes and self._helpers:
                await asyncio.wait(self._helpers, return_when=asyncio.FIRST_COMPLETED)
                self._forget_ended()
                return False
            if not holes:
                return True
            start = holes[0][0]
        part = Part(start, None if size_bytes is None else self._end_of_hole(start, size_bytes))
        await fetch_part(
            self._sink,
            part,
            self._request,
            self._upstream,
            on_size=self._call_helpers,
            stop=partial(self._stop, part),
            on_opened=self._on_opened,
        )
        return self._sink.size_bytes is None  # a body of unknown length ends where it ends

    def _call_helpers(self, start: int, size_bytes: int, *, honours_ranges: bool) -> None:
        """Give away what follows the first part, now that the size is known."""
        if self._helpers or not honours_ranges or self._connections.most < 2:
            return
        others = self._connections.split(start, self._end_of_hole(start, size_bytes))[1:]
        loop = asyncio.get_running_loop()
        for first, end in others:
            helper = loop.create_task(self._help(Part(first, end)))
            self._helpers[helper] = (first, end)

    async def _help(self, part: Part) -> None:
        """Fetch one part; a helper that fails leaves its part to the leader."""
        try:
            await fetch_part(self._sink, part, self._request, self._upstream, accept_whole=False)
        except RangeIgnored as error:
            logger.debug("%s: one connection it is", error)
            self._connections = SINGLE
        except (UpstreamUnavailable, Broken) as error:
            logger.info("%s; the part from %d is fetched later", error, part.start)
        except Exception as error:  # noqa: BLE001 - the leader meets what is final, and tells everyone
            logger.debug("a part from %d failed: %s", part.start, error)

    def _stop(self, part: Part, position: int) -> bool:
        """Whether the leader has come to what a helper is at work on, or has fetched.

        What comes before the part it wanted it must read past: the upstream has sent the whole blob.
        """
        if position < part.start or self._sink.size_bytes is None:
            return False
        return self._is_taken(position) or not any(first <= position < end for first, end in self._sink.missing())

    def _is_taken(self, position: int) -> bool:
        self._forget_ended()
        return any(first <= position < end for first, end in self._helpers.values())

    def _forget_ended(self) -> None:
        for helper in [helper for helper in self._helpers if helper.done()]:
            del self._helpers[helper]

    def _end_of_hole(self, start: int, size_bytes: int) -> int:
        return next((end for first, end in self._sink.missing() if first <= start < end), size_bytes)


def _missing_bytes(sink: Sink) -> int | None:
    return None if sink.size_bytes is None else sum(end - start for start, end in sink.missing())


def _known_s(failure: UpstreamUnavailable | Broken) -> float:
    """Return for how long an outage is known: one that is older than a restart takes is not waited for."""
    return failure.known_s if isinstance(failure, UpstreamAway) else 0.0


def _told_wait_s(failure: UpstreamUnavailable | Broken) -> float:
    """Return how long the registry is to be left alone, 0 when it did not say."""
    if isinstance(failure, Broken) or failure.retry_at_s is None:
        return 0.0
    return failure.retry_at_s - time.monotonic()


def _as_unavailable(failure: UpstreamUnavailable | Broken) -> UpstreamUnavailable:
    return failure if isinstance(failure, UpstreamUnavailable) else UpstreamUnavailable(str(failure), Status(502))
