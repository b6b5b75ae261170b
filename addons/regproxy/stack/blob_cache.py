"""Blobs: a hit is a file; a miss is one download that everyone who asks shares while it runs.

A blob's digest is its name and its proof, so a stored one never changes and is never revalidated.
"""

import logging
import os
from dataclasses import dataclass

from mitmproxy import http

from regproxy.engine.bodies import FileBody, attach
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Blob
from regproxy.oci.errors import ErrorCode
from regproxy.oci.ranges import (
    ByteRange,
    Unsatisfiable,
    WholeBody,
    content_range,
    if_range_matches,
    parse_range,
    unsatisfied_content_range,
)
from regproxy.origin.errors import UpstreamRefused, UpstreamUnavailable
from regproxy.policy.freshness import NotAsked
from regproxy.shared.records import About
from regproxy.stack.access import Allowed, FromRegistry, Refused, Verdict
from regproxy.stack.access_questions import Reader, Wish
from regproxy.stack.answers import answer, content_fields, oci_error, relay, status_for, unavailable
from regproxy.stack.blob_fetch import BlobFetch
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, trace_of, unanswered
from regproxy.stack.not_found import Absent
from regproxy.stack.reads import Read
from regproxy.stack.upstream_requests import content_request, fingerprint
from regproxy.store.errors import IngestFailed, StoreError, StoreFull
from regproxy.store.ingest import Ingest

logger = logging.getLogger(__name__)

BLOB_MEDIA_TYPE = "application/octet-stream"
"""The registry knows no better: a blob's media type stands in the manifest that names it."""

FAR_AHEAD_BYTES = 32 * 1024 * 1024
"""Lazy-pulling clients read a layer's table of contents at its end first: they get it from the registry, at once, while
the download goes on. 32 MiB are a second's wait on a fast line."""

OTHERS_REFUSALS = 3
"""How often someone else's refused download is followed by an attempt with this client's own authorization."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """An answer from a file; its fields lack the content's length."""

    status: int
    fields: dict[str, str]
    length_bytes: int
    size_bytes: int
    """The whole content's."""
    body: FileBody | None
    """None when nothing follows the head."""

    def close(self) -> None:
        """Let go of the file."""
        if self.body is not None:
            self.body.close()


class BlobCache:
    """Answers GET and HEAD of blobs by digest."""

    name = "registry-blob-cache"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer from the store, or from a download that fills it; if the store fails, the upstream is to answer."""
        exchange = unanswered(flow)
        if exchange is None or exchange.cache_status is CacheStatus.BYPASS:
            return
        match exchange.endpoint:
            case Blob() as blob if flow.request.method in ("GET", "HEAD"):
                try:
                    await self._answer(flow, exchange, blob)
                except IngestFailed as error:
                    exchange.error = str(error)
                    flow.response = oci_error(502, ErrorCode.UNAVAILABLE, str(error))
                except StoreFull as error:
                    # The cache works: this blob is larger than what it may keep, or others are filling it now.
                    exchange.cache_status, exchange.error = CacheStatus.BYPASS, str(error)
                    logger.warning("%s passes through and is not stored: %s", blob.digest, error)
                except StoreError as error:
                    exchange.cache_status, exchange.error = CacheStatus.BYPASS, str(error)
                    self._core.store_failed(error)
            case _:
                pass

    def stored(self, blob: Blob, read: Read) -> FileAnswer | None:
        """Return the answer from the blob's file, if it is there. Raises StoreError."""
        stored = self._core.store.open_content(blob.digest)
        if stored is None:
            return None
        with stored:
            return file_answer(blob.digest, FileBody(os.dup(stored.fileno()), 0, stored.size_bytes), read)

    async def _answer(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob) -> None:
        stored = self.stored(blob, Read.of_request(flow.request))
        if stored is not None:
            self._core.store_worked()
            await self._answer_stored(flow, exchange, blob, stored)
        elif self._is_absent(flow, exchange, blob):
            exchange.cache_status = CacheStatus.HIT
        else:
            await self._answer_missing(flow, exchange, blob)

    async def _answer_stored(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob, stored: FileAnswer) -> None:
        """Answer with the file, if the client may have it."""
        match await self._admit(flow, exchange, blob, stored):
            case Allowed():
                exchange.cache_status = CacheStatus.HIT
                respond(flow, stored)
            case Refused():
                pass
            case FromRegistry():
                await self._from_registry(flow, exchange, blob)

    async def _answer_missing(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob) -> None:
        """Fetch the blob: from the bucket, if there is one that has it and the client may, else from the registry.

        A HEAD is answered by what the bucket says of it.
        """
        shared = self._core.shared
        if shared is None or self._core.store.running(blob.digest) is not None:
            await self._from_registry(flow, exchange, blob)
            return
        about = await shared.content.about(blob.digest)
        stored = self.stored(blob, Read.of_request(flow.request))
        if stored is not None:
            # It has come while the bucket was asked.
            await self._answer_stored(flow, exchange, blob, stored)
            return
        if about is None:
            await self._from_registry(flow, exchange, blob)
            return
        described = FileAnswer(200, blob_fields(blob.digest), about.size_bytes, about.size_bytes, None)
        match await self._admit(flow, exchange, blob, described):
            case Allowed():
                exchange.cache_status, trace_of(exchange).from_bucket = CacheStatus.HIT, True
                if flow.request.method == "HEAD":
                    respond(flow, described)
                else:
                    await self._from_bucket(flow, exchange, blob, about)
            case Refused():
                pass
            case FromRegistry():
                await self._from_registry(flow, exchange, blob)

    async def _from_bucket(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob, about: About) -> None:
        """Answer a client that may have it, with what has come meanwhile if it has."""
        stored = self.stored(blob, Read.of_request(flow.request))
        if stored is not None:
            respond(flow, stored)
        else:
            await self._download(flow, exchange, blob, about)

    async def _from_registry(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob) -> None:
        """Fetch the blob from its registry; a HEAD is left to that.

        Its HEAD and GET lead to URLs that are signed apart, and some storage answers no HEAD at all.
        """
        exchange.cache_status = CacheStatus.MISS
        if flow.request.method == "GET":
            await self._download(flow, exchange, blob)

    def _answer_away(self, flow: http.HTTPFlow, exchange: Exchange, reason: str) -> None:
        exchange.error = reason
        flow.response = unavailable(502, reason)

    def _is_absent(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob) -> bool:
        """Answer for a registry that said 404 a moment ago, unless the client wants to hear it from itself."""
        absent = self._absent(exchange, blob)
        if "no-cache" in flow.request.headers.get("cache-control", "").lower():
            self._core.not_found.forget(absent)
        head = flow.request.method == "HEAD"
        known = self._core.not_found.find(absent, head=head)
        if known is None:
            return False
        exchange.error = f"{exchange.registry} answered 404 a moment ago"
        flow.response = relay(known, head=head)
        return True

    def _absent(self, exchange: Exchange, blob: Blob) -> Absent:
        own = fingerprint(self._core.upstream.callers, exchange)
        return Absent(exchange.registry, blob.name, str(blob.digest), (), own)

    async def _admit(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob, file: FileAnswer) -> Verdict:
        """Decide whether the client may have an answer; else it is closed, and a refusal is set in its place."""
        head = content_request("HEAD", flow, exchange, blob)
        wish = Wish(Reader.of(exchange, blob.name), blob.digest, file.size_bytes, head)
        try:
            verdict = await self._core.access.admit(wish)
        except BaseException:
            file.close()
            raise
        match verdict:
            case Allowed(reason):
                exchange.error = reason
                return verdict
            case Refused(refusal, reason):
                exchange.error = reason
                flow.response = relay(refusal, head=flow.request.method == "HEAD")
            case FromRegistry():
                pass
        file.close()
        return verdict

    async def _download(self, flow: http.HTTPFlow, exchange: Exchange, blob: Blob, about: About | None = None) -> None:
        """Join the running download of this digest, or start it; from the bucket first, if that knows it (`about`)."""
        request = content_request("GET", flow, exchange, blob)
        if request.is_drill:
            # Before a download is joined, which others began, or begun, which others would join.
            self._answer_away(flow, exchange, f"{exchange.registry} is away, in a drill")
            return
        for _ in range(OTHERS_REFUSALS):
            fetch = BlobFetch(self._core, exchange, blob, request, about, self._core.not_found.writes)
            ingest = self._core.store.join_or_start(blob.digest, fetch)
            self._core.downloads.joined(blob.digest, exchange, blob.name, _client_ip(flow))
            try:
                size_bytes = await ingest.size()
            except UpstreamRefused as error:
                if fetch.has_begun:
                    await self._answer_refused(flow, fetch, error)
                    return
                # Refused to someone else, of another repository perhaps: that says nothing about this client.
            except UpstreamUnavailable as error:
                exchange.error = str(error)
                otherwise = 504 if isinstance(error.failure, NotAsked) else 502
                flow.response = unavailable(status_for(error.failure, otherwise), str(error), error.retry_at_s)
                return
            else:
                if await self._answer_arriving(flow, fetch, ingest, size_bytes):
                    return
                await self._core.store.landed(ingest)  # the next turn is this client's own
        flow.response = oci_error(
            503, ErrorCode.UNAVAILABLE, f"{blob.digest} was refused to others who asked first; try again"
        )

    async def _answer_arriving(self, flow: http.HTTPFlow, fetch: BlobFetch, ingest: Ingest, size_bytes: int) -> bool:
        """Answer with what arrives, or with a refusal; False when only a download of its own shows what it may have."""
        exchange, blob = fetch.exchange, fetch.blob
        if is_far_ahead(flow.request.headers.get("range"), size_bytes, ingest.contiguous_bytes):
            exchange.cache_status = CacheStatus.BYPASS
            return True
        body = FileBody(ingest.open(), 0, size_bytes, ingest.released)
        file = file_answer(blob.digest, body, Read.of_request(flow.request))
        # What somebody else fetches is for whom the registry lets read it, as what is stored.
        is_its_own = fetch.has_begun or self._core.access.arrives_for(fetch.reader, blob.digest)
        verdict = Allowed() if is_its_own else await self._admit(flow, exchange, blob, file)
        if isinstance(verdict, Allowed):
            respond(flow, file)
        return not isinstance(verdict, FromRegistry)

    async def _answer_refused(self, flow: http.HTTPFlow, fetch: BlobFetch, error: UpstreamRefused) -> None:
        """Pass on what the registry said to this client, and remember it."""
        counts = error.answer.origin == fetch.request.url.origin
        await self._core.access.learn(fetch.reader, error.answer, counts=counts)
        fetch.exchange.error = str(error)
        absent = self._absent(fetch.exchange, fetch.blob)
        self._core.not_found.keep(absent, error.answer, method="GET", writes=fetch.writes)
        flow.response = relay(error.answer, head=False)


def _client_ip(flow: http.HTTPFlow) -> str:
    return flow.client_conn.peername[0] if flow.client_conn.peername else ""


def is_far_ahead(range_field: str | None, size_bytes: int, arrived_bytes: int) -> bool:
    """Whether a range begins so far behind what has arrived that the registry answers it sooner."""
    wanted = parse_range(range_field, size_bytes)
    return isinstance(wanted, ByteRange) and wanted.start - arrived_bytes > FAR_AHEAD_BYTES


def blob_fields(digest: Digest) -> dict[str, str]:
    """Describe a blob."""
    return content_fields(digest, BLOB_MEDIA_TYPE) | {"Accept-Ranges": "bytes"}


def file_answer(digest: Digest, body: FileBody, read: Read) -> FileAnswer:
    """Answer with a file, or the part of it that the request's Range names (RFC 9110 section 14)."""
    size_bytes = body.end
    fields = blob_fields(digest)
    wanted = parse_range(read.range, size_bytes)
    # RFC 9110 section 14.2: range handling is defined for GET only.
    if read.method != "GET" or not if_range_matches(read.if_range, fields["ETag"]):
        wanted = WholeBody()
    match wanted:
        case Unsatisfiable():
            body.close()
            fields["Content-Range"] = unsatisfied_content_range(size_bytes)
            return FileAnswer(416, fields, 0, size_bytes, None)
        case ByteRange() as part:
            fields["Content-Range"] = content_range(part, size_bytes)
            body.start, body.end, status = part.start, part.end_inclusive + 1, 206
        case WholeBody():
            status = 200
    length_bytes = body.length_bytes
    if read.is_head or length_bytes == 0:
        body.close()
        return FileAnswer(status, fields, length_bytes, size_bytes, None)
    return FileAnswer(status, fields, length_bytes, size_bytes, body)


def respond(flow: http.HTTPFlow, file: FileAnswer) -> None:
    """Write an answer to the flow."""
    flow.response = answer(file.status, file.fields, length_bytes=file.length_bytes)
    if file.body is not None:
        attach(flow, file.body)
