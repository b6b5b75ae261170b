"""Outage drills: marks the requests of clients for whom a registry is to be away, and notes what they got.

The rules are `policy.drills`; that such a request asks nobody is seen to by `origin.client` and `blob_cache`.
"""

from mitmproxy import http

from regproxy.oci.endpoint import Blob, Manifest, build_path
from regproxy.policy.drills import note
from regproxy.stack.access_log import Entry
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of


class Drilling:
    """Stands before all that may ask a registry."""

    name = "registry-drilling"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Mark a request."""
        exchange = exchange_of(flow)
        if exchange is not None and self._core.drills:
            client = flow.client_conn.peername
            exchange.drill = self._core.drills.covers(exchange.registry, client[0] if client else "")

    def count(self, entry: Entry) -> None:
        """Note what a client got; a listener of the access log."""
        drills, exchange = self._core.drills, entry.exchange
        if not drills or exchange is None:
            return
        drill = exchange.drill or drills.covers(exchange.registry, entry.client_ip)
        if drill is not None:
            is_served = entry.status is not None and entry.status < 500 and not entry.error
            note(drill, _what(entry), entry.client_ip, entry.status, is_served=is_served)


def _what(entry: Entry) -> str:
    assert entry.exchange is not None
    endpoint = entry.exchange.endpoint
    path = build_path(endpoint) if isinstance(endpoint, Manifest | Blob) else entry.target.partition("?")[0]
    return f"{entry.exchange.registry}{path}"
