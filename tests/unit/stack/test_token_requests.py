"""A client's request for a token: what is one, and what it is answered when nobody else does."""

import json
import time

import pytest
from mitmproxy import http

from regproxy.oci.endpoint import parse_endpoint
from regproxy.stack.client_identities import OWN_TOKEN_PREFIX
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of
from regproxy.stack.token_requests import TokenRequests, asks_for_token
from unit.stack.registry import Registry, hang_up, status
from unit.stack.test_manifests import Ask

TARGET = "/token?service=registry.test&scope=repository:library/alpine:pull"


@pytest.mark.parametrize(
    ("method", "target", "asks"),
    [
        ("GET", TARGET, True),
        ("GET", "/v2/auth?service=quay.io&account=me", True),
        ("GET", "/token?scope=", True),
        ("GET", "/token", False),
        ("GET", "/search?q=service", False),
        ("GET", "/v2/?service=x", False),
        ("GET", "/v2/library/alpine/manifests/latest?scope=x", False),
        ("POST", TARGET, False),
        ("HEAD", TARGET, False),
    ],
)
def test_what_asks_for_a_token(method: str, target: str, *, asks: bool) -> None:
    """By the query of the token specification, on no path of the registry API."""
    assert asks_for_token(method, parse_endpoint(method, target), target) is asks


def body_of(flow: http.HTTPFlow) -> dict[str, object]:
    assert flow.response is not None
    body = json.loads(flow.response.raw_content or b"")
    assert isinstance(body, dict)
    return body


async def test_a_token_server_s_answer_is_passed_on(core: Core, ask: Ask, registry: Registry) -> None:
    """With the query it came with."""
    registry.contents["/token"] = (b'{"token":"real"}', "application/json")
    flow = ask(core, TARGET)
    await TokenRequests(core).request(flow)
    assert body_of(flow) == {"token": "real"}
    assert registry.take_asked() == [("GET", "/token")]


@pytest.mark.parametrize("outage", [hang_up, status(503), status(429)], ids=["hang up", "503", "429"])
async def test_without_one_the_token_is_ours(core: Core, ask: Ask, registry: Registry, outage: object) -> None:
    """In the form of the token specification; the exchange says why."""
    registry.override = outage  # type: ignore[assignment]
    flow = ask(core, TARGET)
    await TokenRequests(core).request(flow)
    body = body_of(flow)
    assert str(body["token"]).startswith(OWN_TOKEN_PREFIX)
    assert (body["access_token"], body["expires_in"]) == (body["token"], 60)
    time.strptime(str(body["issued_at"]), "%Y-%m-%dT%H:%M:%SZ")
    exchange = exchange_of(flow)
    assert exchange is not None
    assert exchange.error
    assert core.identities.recall(f"Bearer {body['token']}") == exchange.client


@pytest.mark.parametrize("code", [400, 401, 403, 404])
async def test_a_refusal_is_passed_on(core: Core, ask: Ask, registry: Registry, code: int) -> None:
    """It is the token server's to say."""
    registry.override = status(code)
    flow = ask(core, TARGET)
    await TokenRequests(core).request(flow)
    assert flow.response is not None
    assert flow.response.status_code == code
