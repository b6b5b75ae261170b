"""Reads that go through to the registry: tags, referrers, HEAD of a blob. They get a token too, where one is wanted.

A client that was told at `/v2/` that no login is needed would not know what to do with a 401 here. There is no second
attempt: the answer streams through, so a token is only used where the registry's challenge is known already.
"""

from typing import assert_never

from mitmproxy import http

from regproxy.oci.endpoint import V1, Blob, BlobUpload, Catalog, Endpoint, Manifest, Other, Ping, Referrers, Tags
from regproxy.policy.realms import Access
from regproxy.stack.core import Core
from regproxy.stack.exchange import unanswered
from regproxy.stack.upstream_requests import url


class PassedReads:
    """Stands behind the caches and sees what they leave to the registry."""

    name = "registry-passed-reads"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def request(self, flow: http.HTTPFlow) -> None:
        """Show the registry what the proxy has, if the client has nothing of its own."""
        exchange = unanswered(flow)
        if exchange is None or exchange.client_has_credentials:
            return
        name = repository_read(flow.request.method, exchange.endpoint)
        if name is None:
            return
        shown = await self._core.upstream.logins.before(url(exchange, "/v2/"), Access(name))
        if shown.header is not None:
            flow.request.headers["authorization"] = shown.header


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
