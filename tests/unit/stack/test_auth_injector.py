"""Whose Authorization goes upstream: the client's own, the operator's for that repository, or none."""

from types import SimpleNamespace

import pytest
from mitmproxy import http

from regproxy.policy.credentials import Credential, authorization_of
from regproxy.stack.auth_injector import AuthInjector
from regproxy.stack.exchange import exchange_of
from regproxy.stack.interception import Interception
from unit.stack.conftest import Configure, make_flow

DIGEST = "sha256:" + "a" * 64
LOGINS = "quay.io:all:p quay.io/team:team:p docker.io/acme:acme:p gitlab.test:git:p"


def basic(username: str | None) -> str | None:
    return None if username is None else authorization_of(Credential("any", None, username, "p"))


@pytest.mark.parametrize(
    ("host", "path", "own", "expected"),
    [
        pytest.param("quay.io", f"/v2/team/app/blobs/{DIGEST}", None, basic("team"), id="a blob's repository"),
        pytest.param("quay.io", "/v2/team/app/manifests/latest", None, basic("team"), id="a manifest's"),
        pytest.param("quay.io", "/v2/team/app/tags/list", None, basic("team"), id="of tags"),
        pytest.param("quay.io", f"/v2/team/app/referrers/{DIGEST}", None, basic("team"), id="of referrers"),
        pytest.param("quay.io", "/v2/teams/app/manifests/latest", None, basic("all"), id="another repository"),
        pytest.param("quay.io", "/v2/", None, basic("all"), id="ping"),
        pytest.param(
            "auth.docker.io", "/token?scope=repository:acme/app:pull", None, basic("acme"), id="scope of a token"
        ),
        pytest.param("auth.docker.io", "/token?scope=repository:library/alpine:pull", None, None, id="another scope"),
        pytest.param("gitlab.test", "/jwt/auth?scope=repository:a/b:pull", None, basic("git"), id="token server"),
        pytest.param("quay.io", "/v2/team/app/manifests/latest", "Bearer own", "Bearer own", id="the client's own"),
        pytest.param("quay.io", "/v2/", "garbage", "garbage", id="even a wrong one"),
        pytest.param("quay.io", "/v2/", " ", basic("all"), id="a blank is none"),
    ],
)
async def test_whose_authorization_is_sent(
    configure: Configure, host: str, path: str, own: str | None, expected: str | None
) -> None:
    """The path or the scope says for which repository; the client's own is kept as it is."""
    core = configure(AUTH_REGISTRIES=LOGINS)
    flow = make_flow("GET", host, 443, path, {} if own is None else {"Authorization": own})
    Interception(core).requestheaders(flow)
    await AuthInjector(core).requestheaders(flow)

    exchange = exchange_of(flow)
    assert exchange is not None
    assert exchange.authorization == expected
    assert exchange.client_has_credentials is (own is not None and own.strip() != "")
    if expected is not None:
        assert flow.request.headers["authorization"] == expected


@pytest.mark.parametrize(
    ("status", "own", "distrusted"),
    [(401, None, ["quay.io"]), (200, None, []), (404, None, []), (401, "Bearer own", [])],
)
async def test_a_refused_login_is_asked_for_anew(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, status: int, own: str | None, distrusted: list[str]
) -> None:
    """Only a 401 to the operator's own login says something about it."""
    core = configure(AUTH_REGISTRIES=LOGINS)
    hosts: list[str] = []
    source = SimpleNamespace(
        credential_for=core.credentials.credential_for, distrust=lambda host, _port: hosts.append(host)
    )
    monkeypatch.setattr(core, "_credentials", source)
    flow = make_flow("GET", "quay.io", 443, "/v2/", {} if own is None else {"Authorization": own})
    Interception(core).requestheaders(flow)
    injector = AuthInjector(core)
    await injector.requestheaders(flow)
    flow.response = http.Response.make(status)
    injector.responseheaders(flow)

    assert hosts == distrusted
