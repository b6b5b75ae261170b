"""What is intercepted, what is tunnelled, what is refused; and what each intercepted request asks for.

The upstream is chosen by the CONNECT authority alone. Tunnels may lead anywhere but to ourselves and to addresses
that only this machine can reach; a host that the operator lists may be anywhere.
"""

import ipaddress
import socket
import weakref
from functools import lru_cache

from mitmproxy import connection, http
from mitmproxy.proxy import layer, server_hooks
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode

from regproxy.engine.connect_layer import (
    ConnectLayer,
    ConnectRequest,
    Intercept,
    Refuse,
    Tunnel,
    TunnelServer,
    Verdict,
    Via,
    connect_head,
    door_tls_layer,
)
from regproxy.engine.http_layer import Door, RegistryHttpLayer, door
from regproxy.engine.warm_connection import CONNECT_START
from regproxy.oci.endpoint import EndpointError, parse_endpoint
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Registry, names, normalise_host
from regproxy.origin.resolver import AddressForbiddenError, AddressRule, is_listed, is_own_port, resolve
from regproxy.policy.addresses import connect_forbidden_reason
from regproxy.policy.image_rules import may_use
from regproxy.policy.interception import find_pattern, is_intercepted
from regproxy.policy.mappings import find_mapping
from regproxy.policy.tiers import request_class
from regproxy.policy.upstream_proxy import ForwardProxy, proxy_authorization
from regproxy.stack.access_log import PassedBytes
from regproxy.stack.answers import oci_error
from regproxy.stack.client_login import CHALLENGE, REASON, ClientLogin
from regproxy.stack.client_rules import STRANGER
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, begin

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
_TLS_HANDSHAKE = 0x16  # RFC 8446 section 5.1
_HTTP_METHOD_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Interception:
    """Chooses the layers of a connection and classifies its requests."""

    name = "registry-interception"

    def __init__(self, core: Core, login: ClientLogin | None = None) -> None:
        self._core = core
        self._login = login or ClientLogin(core)
        # Every request asks, and the settings stay.
        self.registry_at = lru_cache(maxsize=1024)(self._find_registry)
        self._asked: weakref.WeakKeyDictionary[connection.Connection, tuple[str, int]] = weakref.WeakKeyDictionary()

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Put our layers on a connection to the proxy's port: mitmproxy's own would open tunnels by no rule of ours."""
        layers = nextlayer.context.layers
        if nextlayer.layer is not None or len(layers) != 1 or not isinstance(layers[0], modes.HttpProxy):
            return
        # Before a request may stand an empty line (RFC 9112 section 2.2); a CONNECT is not looked for behind one.
        start = nextlayer.data_client().removeprefix(b"\r\n")[: len(CONNECT_START)]
        if not start:
            return
        # A head may come in pieces. What cannot be a request either is refused by the same layer.
        if start[0] == _TLS_HANDSHAKE and self._core.settings.mirror_tls:
            nextlayer.layer = door_tls_layer(nextlayer.context)
        elif CONNECT_START.startswith(start) or start[0] not in _HTTP_METHOD_BYTES:
            nextlayer.layer = ConnectLayer(nextlayer.context)
        else:
            nextlayer.layer = RegistryHttpLayer(nextlayer.context, HTTPMode.regular)

    async def registry_connect(self, connect: ConnectRequest) -> None:
        """Decide about a CONNECT."""
        connect.host = connect.host.lower().removesuffix(".")
        client = connect.client.peername[0] if connect.client.peername else ""
        if not may_use(client, self._core.settings.allow_clients):
            connect.verdict = Refuse(403, STRANGER.format(client))
        elif await self._login.is_allowed(connect.request.headers.get("proxy-authorization")):
            connect.verdict = await self._decide(connect.host, connect.port)
        else:
            connect.verdict = Refuse(407, REASON, CHALLENGE)

    async def _decide(self, host: str, port: int) -> Verdict:
        settings = self._core.settings
        if not self._core.ready:
            return Refuse(503, "the proxy is starting")
        if is_intercepted(host, port, settings.registries):
            return Intercept()
        try:
            return await self._tunnel(host, port)
        except AddressForbiddenError as error:
            return Refuse(403, f"{error}; list {host} in REGISTRIES or TRUSTED_HOSTS if that is meant")
        except OSError as error:
            return Refuse(502, f"{host} cannot be resolved: {error.strerror or error}")

    async def _tunnel(self, host: str, port: int) -> Tunnel:
        """Return the way to a host, through the operator's proxy if there is one, which then looks the name up."""
        proxy = self.proxy_for("https", host, port)
        if proxy is None:
            return Tunnel(tuple(await self.tunnel_addresses(host, port)))
        addresses = await self._resolve(proxy.host, proxy.port, None)
        return Tunnel(tuple(addresses), via=Via(str(proxy), connect_head(host, port, proxy_authorization(proxy))))

    def proxy_for(self, scheme: str, host: str, port: int) -> ForwardProxy | None:
        """Return the operator's proxy that leads to a host; a mapped name is reached where the operator said."""
        settings = self._core.settings
        proxy = settings.upstream_proxies.choose(scheme, host, port)
        if proxy is None or find_mapping(host, settings.upstream_mappings) is not None:
            return None
        # The proxy is asked for no address that we must not ask for ourselves.
        return proxy if _literal_reason(host) is None else None

    async def tunnel_addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        """Return where to connect to for a host that is no registry. Raises AddressForbiddenError, OSError."""
        settings = self._core.settings
        rule = None if is_listed(host, port, settings.trusted_hosts) else connect_forbidden_reason
        return await self._resolve(host, port, rule)

    async def _resolve(self, host: str, port: int, rule: AddressRule | None) -> list[tuple[str, int]]:
        settings = self._core.settings
        family = socket.AF_INET if settings.disable_ipv6 else socket.AF_UNSPEC
        addresses = await resolve(
            host, port, mappings=settings.upstream_mappings, rule=rule, family=family, lookup=self._core.lookup
        )
        for address, mapped_port in addresses:
            if is_own_port(address, mapped_port, self._core.own_ports):
                raise AddressForbiddenError(f"{host}:{port} is this proxy itself")
        return addresses

    def asked_of(self, server: connection.Connection) -> tuple[str, int] | None:
        """Return the host and port that a connection of mitmproxy's is for, by name, wherever it is mapped to."""
        return self._asked.get(server)

    async def server_connect(self, connecting: server_hooks.ServerConnectionHookData) -> None:
        """Send mitmproxy's own upstream connections where a name is mapped to, and keep them out of this machine."""
        address = connecting.server.address
        if address is None or connecting.server.error or isinstance(connecting.server, TunnelServer):
            return
        host, port = address[0], address[1]
        self._asked[connecting.server] = (host, port)
        settings = self._core.settings
        if any((proxy.host, proxy.port) == (host, port) for proxy in settings.upstream_proxies.proxies):
            return
        is_listed_host = is_intercepted(host, port, settings.registries) or is_listed(host, port, settings.known_hosts)
        as_the_system_does = not settings.nameservers and not settings.disable_ipv6
        is_mapped = find_mapping(host, settings.upstream_mappings) is not None
        if is_listed_host and as_the_system_does and not is_mapped and port not in self._core.own_ports:
            return
        try:
            found = self._resolve(host, port, None) if is_listed_host else self.tunnel_addresses(host, port)
            connecting.server.address = (await found)[0]
        except OSError as error:
            connecting.server.error = str(error.strerror or error)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Find out what is asked of which registry; refuse what no registry may be asked."""
        entrance = door(flow.request)
        if flow.response is not None or flow.error is not None or entrance in (None, Door.OWN):
            return
        known = self.registry_at(flow.request.host, flow.request.port)
        if known is None:
            return
        registry, plain_http = known
        for what, named in (("Host field", flow.request.host_header), ("TLS handshake", flow.client_conn.sni)):
            if not names(named, registry.host):
                reason = f"the {what} names another host than the connection to {registry}"
                flow.response = oci_error(421, ErrorCode.UNSUPPORTED, reason)
                return
        try:
            endpoint = parse_endpoint(flow.request.method, flow.request.path)
        except EndpointError as error:
            flow.response = oci_error(400, error.code, str(error))
            return
        if flow.request.method in _WITHOUT_BODY and has_body(flow.request):
            # RFC 9110 section 9.3.1: content in a GET has no defined meaning, and is how requests are smuggled past a
            # cache.
            flow.response = oci_error(400, ErrorCode.UNSUPPORTED, "a GET or HEAD request must not have a body")
            return
        settings = self._core.settings
        flow.request.scheme = "http" if plain_http or flow.request.scheme == "http" else "https"
        wanted = request_class(endpoint, settings.tiers, caching_enabled=settings.enable_manifest_cache)
        begin(flow, Exchange(registry, flow.request.scheme, endpoint, wanted))

    def _find_registry(self, host: str, port: int) -> tuple[Registry, bool] | None:
        """Return the registry at a host, and whether it is spoken to over plain http; None for any other host."""
        patterns = self._core.settings.registries
        if not is_intercepted(host, port, patterns):
            return None
        name = normalise_host(host)
        pattern = find_pattern(name, port, patterns)
        return Registry(name, port), pattern is not None and pattern.plain_http

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Never collect an upstream's body in memory: what the stack does not answer itself streams through."""
        if flow.response is not None and flow.server_conn.timestamp_start is not None:
            flow.response.stream = PassedBytes()


def _literal_reason(host: str) -> str | None:
    """Return why a host that is written as an address may not be connected to."""
    try:
        return connect_forbidden_reason(str(ipaddress.ip_address(host)))
    except ValueError:
        return None


def has_body(request: http.Request) -> bool:
    """Whether more than a head is announced."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
