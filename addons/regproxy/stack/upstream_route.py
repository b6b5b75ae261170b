"""How mitmproxy reaches an upstream for what the stack leaves to it: pushes, lists, tokens, and forwarded requests.

The stack's own client does the same for manifests and blobs (`origin.client`): an upstream proxy where one is set, no
verification where the operator does without, and no way into this machine.
"""

from mitmproxy import connection, http, tls
from mitmproxy.net import server_spec

from regproxy.engine.http_layer import Door, door
from regproxy.engine.upstream_tls import unverified
from regproxy.origin.resolver import AddressForbiddenError
from regproxy.policy.interception import find_pattern
from regproxy.policy.upstream_proxy import ForwardProxy, proxy_authorization
from regproxy.stack.answers import plain_text
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of
from regproxy.stack.interception import Interception


class UpstreamRoute:
    """The last addon before the log: what comes here goes out."""

    name = "registry-upstream-route"

    def __init__(self, core: Core, interception: Interception) -> None:
        self._core = core
        self._interception = interception

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse a forwarded request to this machine; choose the proxy of any other."""
        if flow.response is not None or flow.error is not None or door(flow.request) in (None, Door.OWN):
            return
        request = flow.request
        proxy = self._interception.proxy_for(request.scheme, request.host, request.port)
        if door(request) is Door.FORWARD and exchange_of(flow) is None:
            if proxy is None and not await self._is_reachable(flow):
                return
            # Whatever is uploaded passes through as it arrives: it would be collected in memory.
            request.stream = request.headers.get("content-length", "0") != "0" or (
                "transfer-encoding" in request.headers
            )
        self._lead(flow, proxy)

    async def _is_reachable(self, flow: http.HTTPFlow) -> bool:
        """Answer here what may not be forwarded; mitmproxy would make an error page of it."""
        host, port = flow.request.host, flow.request.port
        try:
            await self._interception.tunnel_addresses(host, port)
        except AddressForbiddenError as error:
            flow.response = plain_text(
                403, f"registry-proxy: {error}; list {host} in REGISTRIES or TRUSTED_HOSTS if that is meant\n"
            )
        except OSError as error:
            flow.response = plain_text(
                502, f"registry-proxy: {host} cannot be resolved: {error.strerror or type(error).__name__}\n"
            )
        return flow.response is None

    @staticmethod
    def _lead(flow: http.HTTPFlow, proxy: ForwardProxy | None) -> None:
        """Set the proxy of the connection that will be opened; one that is open for another way is not used."""
        via: server_spec.ServerSpec | None = None if proxy is None else ("http", (proxy.host, proxy.port))
        if flow.server_conn.via == via:
            return
        if flow.server_conn.timestamp_start is not None:
            flow.server_conn = connection.Server(address=flow.server_conn.address)
        flow.server_conn.via = via

    def http_connect_upstream(self, flow: http.HTTPFlow) -> None:
        """Log in at the proxy that the connection leads to."""
        for proxy in self._core.settings.upstream_proxies.proxies:
            field = proxy_authorization(proxy)
            if field is not None and flow.server_conn.address == (proxy.host, proxy.port):
                flow.request.headers["proxy-authorization"] = field
                return

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        """Do without verification where the operator does."""
        settings = self._core.settings
        if tls_start.ssl_conn is not None or not settings.verify_ssl_except:
            return
        asked = self._interception.asked_of(tls_start.conn)
        if asked is not None and find_pattern(*asked, settings.verify_ssl_except) is not None:
            tls_start.ssl_conn = unverified(asked[0])
