"""Lists and HEADs that no cache answers: asked by our own client, with a second attempt, and a limit."""

import base64
import json
from collections.abc import Callable

import pytest
from aiohttp import web
from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.stack import passed_reads
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of
from regproxy.stack.passed_reads import PassedReads
from unit.stack.conftest import Configure
from unit.stack.registry import Override, Registry, hang_up, status

ALICE = "Basic " + base64.b64encode(b"alice:secret").decode()
BOB = "Basic " + base64.b64encode(b"bob:builder").decode()
TAGS = "/v2/a/tags/list"
REFERRERS = f"/v2/a/referrers/{Digest.of(b'x')}"
BLOB = f"/v2/a/blobs/{Digest.of(b'x')}"

type Ask = Callable[..., http.HTTPFlow]


async def read(core: Core, ask: Ask, path: str, method: str = "GET", **fields: str) -> http.HTTPFlow:
    flow = ask(core, path, method, **fields)
    await PassedReads(core).request(flow)
    return flow


def wants(login: str) -> Override:
    """Return what asks everybody for one login, and then answers with what it was asked."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") != login:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.json_response({"asked": request.path_qs}, headers={"Link": '</v2/a/tags/list?n=1>; rel="next"'})

    return answer


@pytest.mark.parametrize("path", [f"{TAGS}?n=1&last=b%2Fc", f"{REFERRERS}?artifactType=x"])
async def test_a_list_is_passed_on_whole(configure: Configure, ask: Ask, registry: Registry, path: str) -> None:
    """With its query and the link to the next page, and in the log's words whose login it was."""
    core = configure(AUTH_REGISTRIES=f"{registry.name}|alice|secret", AUTH_REGISTRY_DELIMITER="|")
    registry.override = wants(ALICE)

    flow = await read(core, ask, path)

    assert flow.response is not None
    assert flow.response.status_code == 200
    assert json.loads(flow.response.content or b"") == {"asked": path}
    assert "next" in flow.response.headers["link"]
    exchange = exchange_of(flow)
    assert exchange is not None
    assert exchange.trace is not None
    assert exchange.trace.opener == "operator:alice@127.0.0.1"


async def test_a_refused_login_of_the_operator_is_followed_by_a_second_attempt(
    configure: Configure, ask: Ask, registry: Registry
) -> None:
    """What is open to everybody is open with a wrong password of the operator's, too."""
    core = configure(AUTH_REGISTRIES=f"{registry.name}|alice|old", AUTH_REGISTRY_DELIMITER="|")

    async def refuse_passwords(request: web.BaseRequest) -> web.StreamResponse:
        has_login = "Authorization" in request.headers
        return web.Response(status=401 if has_login else 200, headers={"WWW-Authenticate": 'Basic realm="x"'})

    registry.override = refuse_passwords

    flow = await read(core, ask, TAGS)

    assert flow.response is not None
    assert flow.response.status_code == 200


async def test_a_clients_own_login_is_shown(configure: Configure, ask: Ask, registry: Registry) -> None:
    """And its refusal is the answer, with the registry's challenge."""
    core = configure(AUTH_REGISTRIES=f"{registry.name}|alice|secret", AUTH_REGISTRY_DELIMITER="|")
    registry.override = wants(ALICE)

    flow = await read(core, ask, TAGS, Authorization=BOB)

    assert flow.response is not None
    assert (flow.response.status_code, flow.response.headers["www-authenticate"]) == (401, 'Basic realm="x"')
    assert registry.authorizations == [BOB]


async def test_what_is_too_long_streams(
    core: Core, ask: Ask, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left to mitmproxy, which keeps nothing of it."""
    monkeypatch.setattr(passed_reads, "LIST_LIMIT_BYTES", 3)
    registry.override = None
    registry.contents[TAGS] = (b"four", "application/json")

    assert (await read(core, ask, TAGS)).response is None


async def test_what_is_encoded_streams(core: Core, ask: Ask, registry: Registry) -> None:
    """Though it was not asked to be."""

    async def encode(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    registry.override = encode

    assert (await read(core, ask, TAGS)).response is None


@pytest.mark.parametrize(("override", "expected"), [(hang_up, 502), (status(503), 503), (status(404), 404)])
async def test_failures_are_told(core: Core, ask: Ask, registry: Registry, override: Override, expected: int) -> None:
    """A registry that gives no answer is a 502 in the registries' own form."""
    registry.override = override

    flow = await read(core, ask, TAGS)

    assert flow.response is not None
    assert flow.response.status_code == expected


async def test_a_head_of_a_blob_tells_its_length(core: Core, ask: Ask, registry: Registry) -> None:
    """Also when the registry sends to storage."""
    digest = registry.blob(b"x", "a")
    registry.contents["/storage"] = (b"x", "binary/octet-stream")

    async def redirect(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=307, headers={"Location": "/storage"}) if request.path == BLOB else None

    for override in (None, redirect):
        registry.override = override
        flow = await read(core, ask, BLOB, "HEAD")

        assert flow.response is not None
        assert (flow.response.status_code, flow.response.headers["content-length"]) == (200, "1")
        assert flow.response.headers["docker-content-digest"] == str(digest)
        assert flow.response.content == b""


async def test_storage_that_answers_no_head_is_left_to_the_client(
    configure: Configure, ask: Ask, registry: Registry
) -> None:
    """The redirect is passed on: a GET may be answered there."""
    core = configure(TRUSTED_HOSTS="localhost")

    async def redirect(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.path == BLOB:
            return web.Response(status=307, headers={"Location": f"http://localhost:{registry.port}/storage"})
        return web.Response(status=403)

    registry.override = redirect

    assert (await read(core, ask, BLOB, "HEAD")).response is None
    assert ("HEAD", "/storage") in registry.asked
