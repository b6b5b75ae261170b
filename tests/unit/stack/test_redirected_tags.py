"""Tags behind redirects (registry.k8s.io redirects every manifest): kept as long as their tier says, no longer."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.stack.exchange import exchange_of
from regproxy.stack.manifest_cache import ManifestCache
from unit.stack.conftest import Configure
from unit.stack.registry import OCI, Registry

BODY = b'{"schemaVersion":2}'
TAG = "/v2/library/alpine/manifests/3.20"
MINUTE_S = 60.0

type Ask = Callable[..., http.HTTPFlow]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("caching", "later"), [("true", ["MISS", "HIT", "REVALIDATED"]), ("false", ["MISS", "REVALIDATED", "REVALIDATED"])]
)
async def test_a_redirected_tag_keeps_its_tier(
    configure: Configure,
    ask: Ask,
    clock: SimpleNamespace,
    registry: Registry,
    status: int,
    caching: str,
    later: list[str],
) -> None:
    """The predecessor kept it for 60 days, also with the cache off. Each method follows the redirect it got itself."""
    core = configure(ENABLE_MANIFEST_CACHE=caching, MANIFEST_CACHE_SECONDARY_TIME="10m")
    registry.tag("3.20", BODY, name="elsewhere")

    async def redirect(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.path != TAG:
            return None
        target = f"/v2/elsewhere/manifests/3.20?signed-for={request.method}"
        return web.Response(status=status, headers={"Location": target})

    registry.override = redirect
    seen = []
    for age_s in (0.0, 9 * MINUTE_S, 2 * MINUTE_S):
        clock.now_s += age_s
        flow = ask(core, TAG, Accept=OCI)
        await ManifestCache(core).request(flow)
        exchange = exchange_of(flow)
        assert flow.response is not None
        assert exchange is not None
        assert (flow.response.status_code, flow.response.raw_content) == (200, BODY)
        assert "location" not in flow.response.headers
        seen.append(str(exchange.cache_status))

    assert seen == later
    assert registry.asked[:2] == [("GET", TAG), ("GET", "/v2/elsewhere/manifests/3.20")]
    assert registry.asked[2:4] == [("HEAD", TAG), ("HEAD", "/v2/elsewhere/manifests/3.20")]
