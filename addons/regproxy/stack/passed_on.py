"""What goes through to a registry by mitmproxy counts for the host's circuit breaker, too, and is stopped by it.

Tags, referrers, HEAD of a blob, pushes, forms of token servers. An outage is told to their clients at once and in
words; with OFFLINE nothing goes out.
"""

import weakref

from mitmproxy import http

from regproxy.engine.http_layer import is_ended_by_client
from regproxy.oci.errors import ErrorCode
from regproxy.origin.circuits import Admission
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.policy.freshness import NotAsked
from regproxy.stack.answers import oci_error
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of, unanswered
from regproxy.stack.push_bypass import WRITES
from regproxy.stack.upstream_requests import url


class PassedOn:
    """Stands behind everything that answers by itself."""

    name = "registry-passed-on"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._admitted: weakref.WeakKeyDictionary[http.HTTPFlow, Admission] = weakref.WeakKeyDictionary()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Let a request out whose body goes along as it arrives."""
        if flow.request.stream:
            self._let_out(flow)

    def request(self, flow: http.HTTPFlow) -> None:
        """Let out what nobody has answered."""
        if not flow.request.stream:
            self._let_out(flow)

    def _let_out(self, flow: http.HTTPFlow) -> None:
        exchange = unanswered(flow)
        if exchange is None:
            return
        try:
            self._admitted[flow] = self._core.upstream.admit_other(
                url(exchange, flow.request.path), is_drill=exchange.drill is not None
            )
        except UpstreamUnavailable as error:
            exchange.error = str(error)
            flow.request.stream = False  # mitmproxy cannot stream what is answered here
            if not isinstance(error.failure, NotAsked):
                flow.response = oci_error(502, ErrorCode.UNAVAILABLE, str(error))
            elif flow.request.method in WRITES:
                flow.response = oci_error(403, ErrorCode.DENIED, str(error))
            else:
                flow.response = oci_error(504, ErrorCode.UNAVAILABLE, str(error))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Note that the host answers."""
        admission = self._admitted.pop(flow, None)
        if admission is not None and flow.response is not None:
            admission.answered(flow.response.status_code)

    def error(self, flow: http.HTTPFlow) -> None:
        """Note that the host cannot be reached. What fails later may be the client's doing."""
        admission, exchange = self._admitted.pop(flow, None), exchange_of(flow)
        if admission is None or exchange is None or flow.error is None or is_ended_by_client(flow):
            return
        if flow.server_conn.timestamp_tcp_setup is None and flow.client_conn.timestamp_end is None:
            admission.failed(f"{exchange.scheme}://{exchange.registry} cannot be reached: {flow.error.msg}")
