"""What is intercepted, tunnelled, refused; and what each request is taken for."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from mitmproxy import connection, http, options
from mitmproxy.proxy import context, events, layer, server_hooks
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
from regproxy.engine.http_layer import Door, RegistryHttpLayer
from regproxy.oci.endpoint import Blob, Manifest, Other, Ping
from regproxy.policy.tiers import RequestClass
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of
from regproxy.stack.interception import Interception
from unit.stack.conftest import Configure, make_flow

type Names = Callable[[str], None]


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return what makes every name lead to one address."""

    def lead_to(address: str) -> None:
        async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            try:
                socket.inet_aton(host)
            except OSError:
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return lead_to


async def decide(core: Core, host: str, port: int = 443) -> Verdict:
    connect = ConnectRequest(
        connection.Client(peername=("192.0.2.7", 1), sockname=("192.0.2.1", 3128)),
        host,
        port,
        http.Request.make("GET", "http://x/"),
    )
    await Interception(core).registry_connect(connect)
    return connect.verdict


class TestConnect:
    @pytest.mark.parametrize(
        ("host", "port"),
        [
            ("registry-1.docker.io", 443),
            ("auth.docker.io", 443),
            ("index.docker.io", 443),
            ("quay.io", 443),
            ("QUAY.io.", 443),
            ("a.b.gcr.io", 443),
            ("reg.lan", 5000),
        ],
    )
    async def test_registries_are_intercepted(self, configure: Configure, host: str, port: int) -> None:
        """Docker Hub always, others as listed; neither case nor a final dot matters, and no name is looked up."""
        core = configure(REGISTRIES="quay.io *.gcr.io reg.lan:5000")

        assert await decide(core, host, port) == Intercept()

    @pytest.mark.parametrize(
        ("host", "port"), [("ghcr.io", 443), ("reg.lan", 443), ("production.cloudflare.docker.com", 443)]
    )
    async def test_others_are_tunnelled_to_the_address_that_was_checked(
        self, configure: Configure, dns: Names, host: str, port: int
    ) -> None:
        """The far end is an address: nothing resolves the name a second time."""
        dns("93.184.215.14")
        core = configure(REGISTRIES="quay.io reg.lan:5000")

        assert await decide(core, host, port) == Tunnel((("93.184.215.14", port),))

    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "100.100.100.200"])  # noqa: S104 - refused
    async def test_what_only_this_machine_can_reach_is_refused(self, core: Core, dns: Names, address: str) -> None:
        """By name and by number; the reason names the settings that allow it."""
        dns(address)

        for host in ("inside.example", address):
            verdict = await decide(core, host)
            assert isinstance(verdict, Refuse)
            assert verdict.status == 403
            assert f"list {host} in REGISTRIES or TRUSTED_HOSTS" in verdict.reason

    async def test_the_local_network_may_be_reached(self, core: Core, dns: Names) -> None:
        """Clients use the proxy for their own hosts too."""
        dns("10.1.2.3")

        assert await decide(core, "files.lan") == Tunnel((("10.1.2.3", 443),))

    async def test_a_trusted_host_may_be_anywhere(self, configure: Configure) -> None:
        """The operator named it."""
        assert await decide(configure(TRUSTED_HOSTS="127.0.0.1"), "127.0.0.1", 8443) == Tunnel((("127.0.0.1", 8443),))

    async def test_a_mapped_host_leads_where_the_operator_said(self, configure: Configure) -> None:
        """Unchecked, with the mapping's port."""
        core = configure(UPSTREAM_MAPPINGS="cdn.example=127.0.0.1:5443")

        assert await decide(core, "cdn.example") == Tunnel((("127.0.0.1", 5443),))

    async def test_a_tunnel_to_the_proxy_itself_is_refused(self, configure: Configure) -> None:
        """Also when loopback is trusted: it would be a circle."""
        core = configure(TRUSTED_HOSTS="127.0.0.1", LISTEN_PORT="3128")

        verdict = await decide(core, "127.0.0.1", 3128)

        assert isinstance(verdict, Refuse)
        assert "this proxy itself" in verdict.reason

    async def test_a_name_that_does_not_exist_is_a_502(self, core: Core) -> None:
        """Said in words."""
        verdict = await decide(core, "no-such-host.invalid")

        assert isinstance(verdict, Refuse)
        assert (verdict.status, verdict.reason[:40]) == (502, "no-such-host.invalid cannot be resolved:")

    async def test_before_the_start_everything_is_refused(self, core: Core) -> None:
        """There is no stack to answer."""
        starting = Core()
        starting.configure(core.settings)

        assert await decide(starting, "quay.io") == Refuse(503, "the proxy is starting")


class TestNextLayer:
    @staticmethod
    def choose(core: Core, first_bytes: bytes, inside: int = 1) -> layer.Layer | None:
        """Return the layer for a connection that begins so."""
        client = connection.Client(peername=("192.0.2.7", 1), sockname=("192.0.2.1", 3128))
        made = context.Context(client, options.Options())
        for _ in range(inside):
            modes.HttpProxy(made)
        asking = layer.NextLayer(made)
        asking.events = [events.DataReceived(client, first_bytes)] if first_bytes else []
        Interception(core).next_layer(asking)
        return asking.layer

    @pytest.mark.parametrize(
        "start", [b"CONNECT quay.io:443 HTTP/1.1\r\n", b"CONNECT ", b"C", b"CONN", b"\x16\x03\x01", b"\x00"]
    )
    async def test_a_connect_and_what_is_no_request_come_to_our_layer(self, core: Core, start: bytes) -> None:
        """In any pieces: mitmproxy's own layers would open tunnels past our rules."""
        assert isinstance(self.choose(core, start), ConnectLayer)

    @pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"PUT http://quay.io/", b"COPY / HTTP/1.1", b"G"])
    async def test_a_request_comes_to_our_http(self, core: Core, start: bytes) -> None:
        """As to a regular proxy."""
        chosen = self.choose(core, start)

        assert isinstance(chosen, RegistryHttpLayer)
        assert chosen.mode is HTTPMode.regular

    @pytest.mark.parametrize(("start", "inside"), [(b"", 1), (b"GET / HTTP/1.1", 0), (b"GET / HTTP/1.1", 2)])
    async def test_other_layers_are_not_ours(self, core: Core, start: bytes, inside: int) -> None:
        """Nothing said yet, or further inside."""
        assert self.choose(core, start, inside) is None


def classified(core: Core, path: str, method: str = "GET", **changes: str) -> http.HTTPFlow:
    """Return a request to quay.io that the addon has looked at."""
    flow = make_flow(method, "quay.io", 443, path, {f.replace("_", "-"): v for f, v in changes.items()})
    Interception(core).requestheaders(flow)
    return flow


class TestRequests:
    @pytest.mark.parametrize(
        ("path", "endpoint", "word"),
        [
            ("/v2/", Ping, RequestClass.UNKNOWN),
            (f"/v2/a/b/blobs/sha256:{'0' * 64}", Blob, RequestClass.BLOB_BY_DIGEST),
            (f"/v2/a/b/manifests/sha256:{'0' * 64}", Manifest, RequestClass.MANIFEST_BY_DIGEST),
            ("/v2/a/b/manifests/latest?x=1", Manifest, RequestClass.MANIFEST_DEFAULT_DISABLED),
            ("/token?scope=x", Other, RequestClass.UNKNOWN),
        ],
    )
    async def test_a_request_is_taken_for_what_it_is(
        self, core: Core, path: str, endpoint: type, word: RequestClass
    ) -> None:
        """Once, by the specification's grammar."""
        exchange = exchange_of(classified(core, path))

        assert exchange is not None
        assert isinstance(exchange.endpoint, endpoint)
        assert exchange.request_class is word
        assert (str(exchange.registry), exchange.scheme) == ("quay.io", "https")

    @pytest.mark.parametrize(
        ("path", "method", "fields", "status"),
        [
            ("/v2/a/../b/manifests/x", "GET", {}, 400),
            ("/v2/a%2Fb/manifests/x", "GET", {}, 400),
            ("/v2/a/blobs/sha256:12", "GET", {}, 400),
            (f"/v2/a/manifests/{'x' * 200}", "GET", {}, 400),
            ("/v2/", "GET", {"Host": "evil.example"}, 421),
            ("/v2/", "GET", {"Host": "evil example"}, 421),
            ("/v2/", "GET", {"Content-Length": "5"}, 400),
            ("/v2/", "HEAD", {"Transfer-Encoding": "chunked"}, 400),
        ],
    )
    async def test_what_no_registry_may_be_asked_is_refused(
        self, core: Core, path: str, method: str, fields: dict[str, str], status: int
    ) -> None:
        """With a registry's error, and no exchange for the caches to act on."""
        flow = classified(core, path, method, **fields)

        assert flow.response is not None
        assert flow.response.status_code == status
        assert exchange_of(flow) is None

    @pytest.mark.parametrize("host", ["quay.io", "quay.io:443", "QUAY.IO", "quay.io:8443"])
    async def test_the_host_field_may_be_written_in_any_way(self, core: Core, host: str) -> None:
        """As long as it names the host of the connection; the port is the connection's."""
        flow = classified(core, "/v2/", Host=host)

        assert flow.response is None
        assert exchange_of(flow) is not None

    async def test_a_registry_that_is_listed_as_plain_is_asked_so(self, configure: Configure) -> None:
        """Although the client came by TLS."""
        core = configure(REGISTRIES="http://quay.io")
        flow = classified(core, "/v2/")
        exchange = exchange_of(flow)

        assert exchange is not None
        assert (exchange.scheme, flow.request.scheme) == ("http", "http")

    @pytest.mark.parametrize("door", [None, Door.OWN])
    async def test_what_is_not_for_a_registry_is_left_alone(self, core: Core, door: Door | None) -> None:
        """Requests to the proxy itself and replays."""
        flow = make_flow("GET", "quay.io", 443, "/v2/", door=door)
        Interception(core).requestheaders(flow)

        assert exchange_of(flow) is None
        assert flow.response is None

    async def test_other_hosts_are_forwarded_as_they_are(self, core: Core) -> None:
        """Plain http through the proxy is not ours to judge, broken paths included."""
        flow = make_flow("GET", "deb.example", 80, "/a/../b", door=Door.FORWARD, scheme="http")
        Interception(core).requestheaders(flow)

        assert exchange_of(flow) is None
        assert flow.response is None

    @pytest.mark.parametrize(("from_upstream", "streams"), [(True, True), (False, False)])
    async def test_an_upstreams_body_streams_and_ours_does_not(
        self, core: Core, from_upstream: bool, streams: bool
    ) -> None:
        """Pins mitmproxy: a body is streamed only if that is set when the headers have come."""
        flow = classified(core, "/v2/")
        flow.response = http.Response.make(200, b"x")
        flow.server_conn.timestamp_start = 1.0 if from_upstream else None

        Interception(core).responseheaders(flow)

        assert bool(flow.response.stream) is streams


class TestServerConnect:
    @staticmethod
    async def connect(core: Core, server: connection.Server) -> connection.Server:
        """Return the server as the addon has left it."""
        client = connection.Client(peername=("192.0.2.7", 1), sockname=("192.0.2.1", 3128))
        await Interception(core).server_connect(server_hooks.ServerConnectionHookData(server, client))
        return server

    async def test_a_mapped_registry_is_reached_where_it_is(self, configure: Configure) -> None:
        """Mitmproxy's own connections follow the mappings, too."""
        core = configure(REGISTRIES="quay.io", UPSTREAM_MAPPINGS="quay.io=127.0.0.1:5443")

        assert (await self.connect(core, connection.Server(address=("quay.io", 443)))).address == ("127.0.0.1", 5443)

    async def test_a_listed_registry_is_left_to_mitmproxy(self, core: Core) -> None:
        """It may be anywhere."""
        assert (await self.connect(core, connection.Server(address=("quay.io", 443)))).address == ("quay.io", 443)

    async def test_other_hosts_may_not_be_in_this_machine(self, core: Core, dns: Names) -> None:
        """A plain `http://` request through the proxy gains nothing over a tunnel."""
        dns("127.0.0.1")

        server = await self.connect(core, connection.Server(address=("inside.example", 80)))

        assert server.error is not None
        assert "loopback" in server.error

    async def test_other_hosts_are_connected_by_the_checked_address(self, core: Core, dns: Names) -> None:
        """No second look-up."""
        dns("93.184.215.14")

        server = await self.connect(core, connection.Server(address=("deb.example", 80)))

        assert (server.address, server.error) == (("93.184.215.14", 80), None)

    async def test_a_tunnel_was_checked_before(self, core: Core) -> None:
        """It is not looked at twice."""
        server = await self.connect(core, TunnelServer(address=("127.0.0.1", 1)))

        assert (server.address, server.error) == (("127.0.0.1", 1), None)
