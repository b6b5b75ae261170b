"""What is intercepted, what is tunnelled, what is refused; and what each intercepted request asks for.

The upstream is chosen by the CONNECT authority alone. Tunnels may lead anywhere but to ourselves and to addresses
that only this machine can reach; a host that the operator lists may be anywhere.
"""

import socket
from collections.abc import Sequence

from mitmproxy import http
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
)
from regproxy.engine.http_layer import Door, RegistryHttpLayer, door
from regproxy.engine.warm_connection import CONNECT_START
from regproxy.oci.endpoint import EndpointError, parse_endpoint
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Registry, parse_authority
from regproxy.origin.resolver import AddressForbiddenError, is_listed, resolve
from regproxy.policy.addresses import connect_forbidden_reason
from regproxy.policy.interception import HostPattern, find_pattern, is_intercepted
from regproxy.policy.mappings import find_mapping
from regproxy.policy.tiers import request_class
from regproxy.stack.answers import oci_error
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, begin

_HTTP_METHOD_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Interception:
    """Chooses the layers of a connection and classifies its requests."""

    name = "registry-interception"

    def __init__(self, core: Core) -> None:
        self._core = core

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Put our layers on a connection to the proxy's port: mitmproxy's own would open tunnels by no rule of ours."""
        layers = nextlayer.context.layers
        if nextlayer.layer is not None or len(layers) != 1 or not isinstance(layers[0], modes.HttpProxy):
            return
        start = nextlayer.data_client()[: len(CONNECT_START)]
        if not start:
            return
        # A head may come in pieces. What cannot be a request either is refused by the same layer.
        if CONNECT_START.startswith(start) or start[0] not in _HTTP_METHOD_BYTES:
            nextlayer.layer = ConnectLayer(nextlayer.context)
        else:
            nextlayer.layer = RegistryHttpLayer(nextlayer.context, HTTPMode.regular)

    async def registry_connect(self, connect: ConnectRequest) -> None:
        """Decide about a CONNECT."""
        connect.host = connect.host.lower().removesuffix(".")
        connect.verdict = await self._decide(connect.host, connect.port)

    async def _decide(self, host: str, port: int) -> Verdict:
        settings = self._core.settings
        if not self._core.ready:
            return Refuse(503, "the proxy is starting")
        if is_intercepted(host, port, settings.registries):
            return Intercept()
        try:
            return Tunnel(tuple(await self._tunnel_addresses(host, port)))
        except AddressForbiddenError as error:
            return Refuse(403, f"{error}; list {host} in REGISTRIES or TRUSTED_HOSTS if that is meant")
        except OSError as error:
            return Refuse(502, f"{host} cannot be resolved: {error.strerror or error}")

    async def _tunnel_addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        settings = self._core.settings
        rule = None if is_listed(host, port, settings.trusted_hosts) else connect_forbidden_reason
        family = socket.AF_INET if settings.disable_ipv6 else socket.AF_UNSPEC
        addresses = await resolve(host, port, mappings=settings.upstream_mappings, rule=rule, family=family)
        for address, mapped_port in addresses:
            if self._is_own(address, mapped_port):
                raise AddressForbiddenError(f"{host}:{port} is this proxy itself")
        return addresses

    def _is_own(self, address: str, port: int) -> bool:
        """Whether an address is one of the proxy's own ports on one of this machine's addresses."""
        if port not in self._core.own_ports:
            return False
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))  # only an address of this machine can be bound
            except OSError:
                return False
        return True

    async def server_connect(self, connecting: server_hooks.ServerConnectionHookData) -> None:
        """Send mitmproxy's own upstream connections where a name is mapped to, and keep them out of this machine."""
        address = connecting.server.address
        if address is None or connecting.server.error or isinstance(connecting.server, TunnelServer):
            return
        host, port = address[0], address[1]
        settings = self._core.settings
        is_listed_host = is_intercepted(host, port, settings.registries) or is_listed(
            host, port, settings.trusted_hosts
        )
        is_mapped = find_mapping(host, settings.upstream_mappings) is not None
        if is_listed_host and not is_mapped and port not in self._core.own_ports:
            return
        try:
            connecting.server.address = (await self._tunnel_addresses(host, port))[0]
        except OSError as error:
            connecting.server.error = str(error.strerror or error)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Find out what is asked of which registry; refuse what no registry may be asked."""
        entrance = door(flow.request)
        if flow.response is not None or flow.error is not None or entrance in (None, Door.OWN):
            return
        registry = Registry(flow.request.host.lower().removesuffix("."), flow.request.port)
        settings = self._core.settings
        if not is_intercepted(registry.host, registry.port, settings.registries):
            return
        if not names_host(flow.request.host_header, registry):
            flow.response = oci_error(
                421, ErrorCode.UNSUPPORTED, f"the Host field names another host than the connection to {registry}"
            )
            return
        try:
            endpoint = parse_endpoint(flow.request.method, flow.request.path)
        except EndpointError as error:
            flow.response = oci_error(400, error.code, str(error))
            return
        if flow.request.method in ("GET", "HEAD") and _has_body(flow.request):
            # RFC 9110 section 9.3.1: content in a GET has no defined meaning, and is how requests are smuggled past a
            # cache.
            flow.response = oci_error(400, ErrorCode.UNSUPPORTED, "a GET or HEAD request must not have a body")
            return
        plain_http = flow.request.scheme == "http" or is_plain_http(registry, settings.registries)
        flow.request.scheme = "http" if plain_http else "https"
        wanted = request_class(endpoint, settings.tiers, caching_enabled=settings.enable_manifest_cache)
        begin(flow, Exchange(registry, flow.request.scheme, endpoint, wanted))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Never collect an upstream's body in memory: what the stack does not answer itself streams through."""
        if flow.response is not None and flow.server_conn.timestamp_start is not None:
            flow.response.stream = True


def is_plain_http(registry: Registry, patterns: Sequence[HostPattern]) -> bool:
    """Whether the operator listed a registry as one without TLS."""
    pattern = find_pattern(registry.host, registry.port, patterns)
    return pattern is not None and pattern.plain_http


def names_host(host_field: str | None, registry: Registry) -> bool:
    """Whether a Host field names the registry that the connection leads to; without one there is no contradiction."""
    try:
        host, _ = parse_authority(host_field or str(registry))
    except ValueError:
        return False
    return host == registry.host


def _has_body(request: http.Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
