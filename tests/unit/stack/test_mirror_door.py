"""The mirror door on the way of the hooks: what becomes an exchange, and what never leaves an answer."""

import pytest
from mitmproxy import http

from regproxy.engine.http_layer import Door, door
from regproxy.oci.endpoint import Manifest, parse_endpoint
from regproxy.oci.names import Registry
from regproxy.policy.tiers import RequestClass
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, begin, exchange_of
from regproxy.stack.mirror_door import MirrorAnswers, MirrorDoor
from unit.stack.conftest import Configure, make_flow

MANIFEST = "/v2/team/app/manifests/1"


def request(path: str, method: str = "GET", **fields: str) -> http.HTTPFlow:
    given = {name.replace("_", "-"): value for name, value in fields.items()}
    return make_flow(method, "proxy.test", 3128, path, given, door=Door.OWN, scheme="http")


async def entered(core: Core, flow: http.HTTPFlow) -> http.HTTPFlow:
    await MirrorDoor(core).requestheaders(flow)
    return flow


async def test_a_request_is_as_if_it_had_come_by_the_proxy_door(configure: Configure) -> None:
    """Host, port, scheme, path and Host field are the registry's; nothing that was meant for the proxy is left."""
    core = configure(REGISTRIES="quay.io")
    flow = request(f"{MANIFEST}?ns=quay.io", authorization="Basic eDp5", cookie="a=b", proxy_authorization="Basic eDp5")

    await entered(core, flow)

    assert flow.response is None
    assert (flow.request.scheme, flow.request.host, flow.request.port) == ("https", "quay.io", 443)
    assert (flow.request.path, flow.request.headers["host"]) == (MANIFEST, "quay.io")
    assert not {"authorization", "cookie", "proxy-authorization"} & {name.lower() for name in flow.request.headers}
    assert door(flow.request) is Door.MIRROR
    exchange = exchange_of(flow)
    assert exchange is not None
    assert (exchange.registry, exchange.endpoint) == (Registry("quay.io"), parse_endpoint("GET", MANIFEST))
    assert exchange.namespace == "quay.io"


async def test_a_registry_without_tls_is_asked_without(configure: Configure) -> None:
    """At the port that its entry has, or 80."""
    core = configure(REGISTRIES="http://reg.test")
    flow = await entered(core, request(f"{MANIFEST}?ns=reg.test"))

    assert (flow.request.scheme, flow.request.host, flow.request.port) == ("http", "reg.test", 80)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/quay.io/team/app/blobs/uploads/", 404),
        ("/v2/_catalog?ns=quay.io", 404),
        ("/v2/team/app/blobs/sha256:short?ns=quay.io", 400),
        ("/v2/team/../app/manifests/1?ns=quay.io", 400),
        ("/v2/quay.io/team/app/manifests/1?ns=quay.io&ns=ghcr.io", 400),
    ],
)
async def test_a_mirror_has_content_only(configure: Configure, path: str, status: int) -> None:
    """What is no content is asked of nobody."""
    flow = await entered(configure(REGISTRIES="quay.io ghcr.io"), request(path))

    assert flow.response is not None
    assert flow.response.status_code == status
    assert exchange_of(flow) is None


async def test_a_body_is_refused(configure: Configure) -> None:
    """RFC 9110 section 9.3.1: it is how requests are smuggled past a cache."""
    flow = await entered(configure(REGISTRIES="quay.io"), request(f"{MANIFEST}?ns=quay.io", content_length="5"))

    assert flow.response is not None
    assert flow.response.status_code == 400


@pytest.mark.parametrize("path", ["/", "/ca.crt", "/v2x", "/v1/x"])
async def test_pages_are_left_alone(configure: Configure, path: str) -> None:
    """The setup responder's."""
    flow = await entered(configure(), request(path))

    assert (flow.response, exchange_of(flow), door(flow.request)) == (None, None, Door.OWN)


async def test_the_other_doors_are_left_alone(configure: Configure) -> None:
    """A path like a mirror's is a registry's own there."""
    flow = make_flow("GET", "quay.io", 443, "/v2/quay.io/a/manifests/b", door=Door.TUNNEL)
    await entered(configure(), flow)

    assert (flow.response, flow.request.path) == (None, "/v2/quay.io/a/manifests/b")


async def test_before_the_start_clients_are_sent_on() -> None:
    """With a status at which they ask the registry itself."""
    flow = await entered(Core(), request("/v2/"))

    assert flow.response is not None
    assert flow.response.status_code == 503


def answered(namespace: str | None, status: int, fields: dict[str, str]) -> http.Response:
    """Return what becomes of an answer to a client of either door."""
    flow = make_flow("GET", "quay.io", 443, MANIFEST)
    flow.response = http.Response.make(status, b"", fields)
    endpoint = parse_endpoint("GET", MANIFEST)
    assert isinstance(endpoint, Manifest)
    begin(flow, Exchange(Registry("quay.io"), "https", endpoint, RequestClass.NONE, namespace=namespace))
    MirrorAnswers().responseheaders(flow)
    return flow.response


def test_a_challenge_stays_here() -> None:
    """It would make the client show what it has for the mirror; RFC 9110 wants one with every 401."""
    response = answered("quay.io", 401, {"WWW-Authenticate": "Bearer realm=x", "Set-Cookie": "a=b"})

    assert (response.status_code, response.reason) == (403, "Forbidden")
    assert not {"www-authenticate", "set-cookie"} & {name.lower() for name in response.headers}
    assert response.headers["OCI-Namespace"] == "quay.io"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("Link", "</v2/a/tags/list?last=b>; rel=next", "</v2/quay.io/a/tags/list?last=b>; rel=next"),
        ("Location", "/v2/a/x", "/v2/quay.io/a/x"),
        ("Location", "https://cdn.test/v2/a", "https://cdn.test/v2/a"),
        ("Link", "<?last=b>; rel=next", "<?last=b>; rel=next"),
    ],
)
def test_a_path_at_the_registry_leads_through_the_door(field: str, value: str, expected: str) -> None:
    """Whatever form the client used; what leads elsewhere is left as it is."""
    assert answered("quay.io", 307, {field: value}).headers[field] == expected


def test_answers_of_the_proxy_door_are_left_alone() -> None:
    """Its clients are to get the registry's challenge."""
    fields = {"WWW-Authenticate": "Bearer realm=x", "Location": "/v2/a"}
    response = answered(None, 401, fields)

    assert response.status_code == 401
    assert {name: response.headers[name] for name in fields} == fields
    assert "OCI-Namespace" not in response.headers
