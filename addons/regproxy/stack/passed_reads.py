"""Reads that no cache answers: tags, referrers, HEAD of a blob that is not stored. They log in like a pull's others.

Our own client asks, so that a 401 is followed by a second attempt, and a redirect of a HEAD by the storage's answer:
clients want the length. What cannot be had so goes through to the registry as it came, with one attempt: a list that
is too long for memory, a blob that the cache cannot store, a HEAD that the storage does not answer.
"""

import logging
from typing import assert_never

from mitmproxy import http

from regproxy.oci.endpoint import V1, Blob, BlobUpload, Catalog, Endpoint, Manifest, Other, Ping, Referrers, Tags
from regproxy.origin.errors import Answer, AnswerEncoded, AnswerTooLarge, UpstreamUnavailable
from regproxy.policy.freshness import NotAsked
from regproxy.policy.realms import Access
from regproxy.stack.answers import answer, content_fields, relay, status_for, unavailable
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, unanswered
from regproxy.stack.upstream_requests import read_request, url

logger = logging.getLogger(__name__)

LIST_LIMIT_BYTES = 16 * 1024 * 1024
"""Docker's registry lists all tags at once: 16 MiB are 200,000 long ones."""


class PassedReads:
    """Stands behind the caches and sees what they leave to the registry."""

    name = "registry-passed-reads"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def request(self, flow: http.HTTPFlow) -> None:
        """Ask for the client, or show the registry what the proxy has, if the client has nothing of its own."""
        exchange = unanswered(flow)
        name = None if exchange is None else repository_read(flow.request.method, exchange.endpoint)
        if exchange is None or name is None:
            return
        if exchange.cache_status is not CacheStatus.BYPASS and flow.request.path.isascii():
            await self._ask(flow, exchange, name)
        if flow.response is None and not exchange.client_has_credentials:
            shown = await self._core.upstream.logins.before(url(exchange, "/v2/"), Access(name))
            exchange.credential = shown.credential
            if shown.header is not None:
                flow.request.headers["authorization"] = shown.header

    async def _ask(self, flow: http.HTTPFlow, exchange: Exchange, name: str) -> None:
        """Set the registry's answer, unless it is one that must stream."""
        request = flow.request
        match exchange.endpoint:
            case Tags() | Referrers():
                pass
            case Blob() if request.method == "HEAD":
                pass
            case _:
                return
        asked = read_request(request.method, flow, exchange, name, request.path)
        try:
            upstream = await self._core.upstream.ask(asked, LIST_LIMIT_BYTES)
        except AnswerEncoded as error:
            logger.info("%s: it streams through", error)
        except UpstreamUnavailable as error:
            exchange.error = str(error)
            otherwise = 504 if isinstance(error.failure, NotAsked) else 502
            flow.response = unavailable(status_for(error.failure, otherwise), str(error), error.retry_at_s)
        except AnswerTooLarge as error:
            logger.info("%s: it streams through", error)
        else:
            is_registrys = upstream.origin == asked.url.origin
            if isinstance(exchange.endpoint, Blob):
                flow.response = _of_blob(exchange.endpoint, upstream, is_registrys=is_registrys)
            else:
                flow.response = relay(upstream, head=request.method == "HEAD")


def _of_blob(blob: Blob, head: Answer, *, is_registrys: bool) -> http.Response | None:
    """Return the answer to a HEAD; None when it is the storage's, which answers a GET perhaps."""
    length = head.headers.get("Content-Length", "")
    if head.status == 200 and length.isdecimal():
        fields = content_fields(blob.digest, head.headers.get("Content-Type", "application/octet-stream"))
        # parts of it will come from the cache, whatever its registry can
        return answer(200, fields | {"Accept-Ranges": "bytes"}, length_bytes=int(length))
    return relay(head, head=True) if is_registrys else None


def repository_read(method: str, endpoint: Endpoint) -> str | None:
    """Return the repository that a request reads from, None when it does something else."""
    if method not in ("GET", "HEAD"):
        return None
    match endpoint:
        case Blob(name) | Manifest(name) | Tags(name) | Referrers(name):
            return name
        case BlobUpload() | Catalog() | Ping() | Other() | V1():
            return None
        case _ as unreachable:
            assert_never(unreachable)
