"""Our own client's requests through another proxy: the login goes to it, and to nobody else."""

import pytest
from aiohttp import web

from lab.addresses import free_port
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.redirects import Url
from regproxy.policy.upstream_proxy import ForwardProxy, ProxyPlan, proxy_authorization
from unit.origin.conftest import Open, Serve

HTTPS = UpstreamRequest("GET", Url("https", "registry.test", 443, "/v2/"), (("Authorization", "Bearer mine"),))
HTTP = UpstreamRequest("GET", Url("http", "registry.test", 80, "/v2/"), (("Authorization", "Bearer mine"),))


@pytest.fixture
def unused_port() -> int:
    return free_port()


def plan(port: int) -> ProxyPlan:
    proxy = ForwardProxy("127.0.0.1", port, "me", "s3cret")
    return ProxyPlan(proxy, proxy)


async def test_plain_http_is_asked_of_the_proxy(serve: Serve, open_upstream: Open) -> None:
    """In absolute form, with the login of the proxy and the one of the registry."""
    asked: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        return web.Response(text="ok")

    port = await serve(answer)

    assert (await open_upstream(proxies=plan(port)).ask(HTTP, 1000)).body == b"ok"
    (request,) = asked
    assert request.raw_path == "http://registry.test/v2/"
    assert request.headers["Authorization"] == "Bearer mine"
    assert request.headers["Proxy-Authorization"] == proxy_authorization(ForwardProxy("x", 1, "me", "s3cret"))


async def test_a_proxy_that_refuses_is_named_without_its_login(serve: Serve, open_upstream: Open) -> None:
    """The reason is the proxy's status; it saw its own login, and not the registry's."""
    asked: list[web.BaseRequest] = []

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        return web.Response(status=407)

    upstream = open_upstream(proxies=plan(await serve(refuse)))

    with pytest.raises(UpstreamUnavailable, match="the proxy answered 407") as caught:
        await upstream.ask(HTTPS, 1000)
    assert "s3cret" not in str(caught.value)
    assert not caught.value.passing
    (request,) = asked
    assert (request.method, "Authorization" in request.headers) == ("CONNECT", False)
    assert "Proxy-Authorization" in request.headers


async def test_a_proxy_that_is_away_is_named(open_upstream: Open, unused_port: int) -> None:
    """It may come back."""
    with pytest.raises(UpstreamUnavailable, match="the proxy cannot be reached: Connection refused") as caught:
        await open_upstream(proxies=plan(unused_port)).ask(HTTPS, 1000)
    assert caught.value.passing


async def test_a_mapped_name_is_reached_directly(serve: Serve, open_upstream: Open, unused_port: int) -> None:
    """The operator has said where it is."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok")

    mapping = UpstreamMapping("registry.test", "127.0.0.1", await serve(answer))

    answered = await open_upstream(proxies=plan(unused_port), mappings=(mapping,)).ask(HTTP, 1000)
    assert answered.body == b"ok"


async def test_verification_is_left_out_for_the_hosts_that_are_named(serve: Serve, open_upstream: Open) -> None:
    """And for no other."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok")

    port = await serve(answer, tls=True)
    mappings = tuple(UpstreamMapping(name, "127.0.0.1", port) for name in ("registry.test", "cdn.test"))
    upstream = open_upstream(mappings=mappings, unverified=(HostPattern("registry.test"),))

    assert (await upstream.ask(HTTPS, 1000)).status == 200
    with pytest.raises(UpstreamUnavailable, match="not trusted"):
        await upstream.ask(UpstreamRequest("GET", Url("https", "cdn.test", 443, "/"), ()), 1000)
