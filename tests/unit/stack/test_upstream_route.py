"""What goes out through mitmproxy: where to, by which proxy, and what is not let out."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from mitmproxy import connection, http
from mitmproxy.proxy import server_hooks

from regproxy.engine.http_layer import Door
from regproxy.stack.core import Core
from regproxy.stack.interception import Interception
from regproxy.stack.upstream_route import UpstreamRoute
from unit.stack.conftest import Configure, make_flow

type Names = Callable[[str], list[socket.AddressFamily]]


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return what makes every name lead to one address, and gives the families that were asked for."""

    def lead_to(address: str) -> list[socket.AddressFamily]:
        families: list[socket.AddressFamily] = []

        async def getaddrinfo(
            host: str, port: int | None, *, family: socket.AddressFamily, **_: object
        ) -> list[tuple[object, ...]]:
            del host
            families.append(family)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return families

    return lead_to


def forwarded(method: str = "GET", host: str = "files.test", body: bytes = b"", **fields: str) -> http.HTTPFlow:
    headers = {field.replace("_", "-"): value for field, value in fields.items()}
    return make_flow(method, host, 80, "/x", headers, door=Door.FORWARD, scheme="http", body=body)


async def route(core: Core, flow: http.HTTPFlow) -> http.HTTPFlow:
    interception = Interception(core)
    interception.requestheaders(flow)
    await UpstreamRoute(core, interception).requestheaders(flow)
    return flow


class TestForwarding:
    async def test_an_upload_streams_through(self, core: Core, dns: Names) -> None:
        """It would be collected in memory; a request without a body has nothing to stream."""
        dns("93.184.215.14")

        assert (await route(core, forwarded("PUT", content_length="5"))).request.stream
        assert (await route(core, forwarded("PUT", transfer_encoding="chunked"))).request.stream
        assert not (await route(core, forwarded())).request.stream

    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1"])
    async def test_this_machine_is_not_reached(self, core: Core, dns: Names, address: str) -> None:
        """By whatever name: 403, with the remedy."""
        dns(address)
        flow = await route(core, forwarded())

        assert flow.response is not None
        assert flow.response.status_code == 403
        assert b"TRUSTED_HOSTS" in (flow.response.raw_content or b"")

    async def test_a_name_without_an_address_is_502(self, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
        """In words, not as a page."""

        async def getaddrinfo(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        flow = await route(core, forwarded())

        assert flow.response is not None
        assert flow.response.status_code == 502
        assert b"files.test cannot be resolved: Name or service not known" in (flow.response.raw_content or b"")


class TestProxies:
    async def test_each_request_has_its_own_way(self, configure: Configure, dns: Names) -> None:
        """A connection of an earlier request, opened for another way, is not used."""
        dns("93.184.215.14")
        core = configure(HTTP_PROXY="http://proxy.test:8080", NO_PROXY="direct.test")
        first, second = forwarded(), forwarded(host="direct.test")
        second.server_conn = first.server_conn

        await route(core, first)
        assert first.server_conn.via == ("http", ("proxy.test", 8080))
        first.server_conn.timestamp_start = 1.0
        await route(core, second)
        assert second.server_conn.via is None
        assert first.server_conn.via is not None

    async def test_the_login_goes_to_its_proxy_only(self, configure: Configure) -> None:
        """Of two proxies each gets its own."""
        core = configure(HTTPS_PROXY="http://me:pass@one.test:1", HTTP_PROXY="http://two.test:2")
        fields = []
        for address in (("one.test", 1), ("two.test", 2)):
            flow = make_flow("GET", "quay.io", 443, "/")
            flow.server_conn = connection.Server(address=address)
            UpstreamRoute(core, Interception(core)).http_connect_upstream(flow)
            fields.append(flow.request.headers.get("proxy-authorization"))

        assert fields == ["Basic bWU6cGFzcw==", None]


class TestConnections:
    @pytest.mark.parametrize(
        ("settings", "address", "families"),
        [
            ({}, ("quay.io", 443), []),
            ({"DISABLE_IPV6": "true"}, ("93.184.215.14", 443), [socket.AF_INET]),
            ({"UPSTREAM_MAPPINGS": "quay.io=10.0.0.5:5443"}, ("93.184.215.14", 5443), [socket.AF_UNSPEC]),
            ({"HTTPS_PROXY": "http://quay.io:443"}, ("quay.io", 443), []),
        ],
    )
    async def test_a_listed_host_is_looked_up_as_the_operator_said(
        self,
        configure: Configure,
        dns: Names,
        settings: dict[str, str],
        address: tuple[str, int],
        families: list[socket.AddressFamily],
    ) -> None:
        """Without a word it is the system's business; the name that was asked for is remembered."""
        asked = dns("93.184.215.14")
        interception = Interception(configure(**settings))
        server = connection.Server(address=("quay.io", 443))
        client = connection.Client(peername=("192.0.2.7", 1), sockname=("192.0.2.1", 3128))

        await interception.server_connect(server_hooks.ServerConnectionHookData(server=server, client=client))

        assert (server.address, asked) == (address, families)
        assert interception.asked_of(server) == ("quay.io", 443)
