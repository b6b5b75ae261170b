"""Whose login a client's request carries on, by what it sent, by the operator's wish, and by what is asked."""

import base64
import json

import pytest
from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.policy.identities import NOBODY, Login
from regproxy.policy.openers import OpenedBy
from regproxy.policy.precedence import Own
from regproxy.stack import client_identities
from regproxy.stack.access_log import PassedBytes
from regproxy.stack.auth_injector import AuthInjector
from regproxy.stack.client_identities import OWN_TOKEN_PREFIX
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, exchange_of
from regproxy.stack.interception import Interception
from regproxy.stack.push_bypass import PushBypass
from regproxy.stack.stale_logins import StaleLogins
from regproxy.stack.upstream_requests import content_request
from unit.stack.conftest import Configure, at_once, make_flow

HUB = "registry-1.docker.io"
ALICE = "Basic " + base64.b64encode(b"alice:secret").decode()
BOB = "Basic " + base64.b64encode(b"bob:builder").decode()
OPAQUE = "Bearer opaque"
ANONYMOUS = "Bearer e30.e30.c2ln"
SOMEBODYS = f"Bearer e30.{base64.urlsafe_b64encode(b'{"sub":"bob"}').decode().rstrip('=')}.c2ln"
MANIFEST = "/v2/a/b/manifests/c"
BLOB = f"/v2/a/b/blobs/{Digest.of(b'x')}"
PULL = "/token?service=x&scope=repository:a/b:pull"
LOGIN = {"AUTH_REGISTRIES": "docker.io:alice:secret"}


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_identities, "to_thread", at_once)


async def chosen(
    core: Core, path: str, own: str | None, method: str = "GET", host: str = HUB
) -> tuple[http.HTTPFlow, Exchange]:
    flow = make_flow(method, host, 443, path, {} if own is None else {"Authorization": own})
    Interception(core).requestheaders(flow)
    PushBypass(core).requestheaders(flow)
    await AuthInjector(core).requestheaders(flow)
    exchange = exchange_of(flow)
    assert exchange is not None
    return flow, exchange


@pytest.mark.parametrize(
    ("own", "by_client", "by_client_then_proxy", "by_proxy"),
    [
        (None, ALICE, ALICE, ALICE),
        (ANONYMOUS, ALICE, ALICE, ALICE),
        (OPAQUE, f"{OPAQUE}, else ours", f"{OPAQUE}, else ours", ALICE),
        (SOMEBODYS, SOMEBODYS, f"{SOMEBODYS}, else ours", ALICE),
        (BOB, BOB, f"{BOB}, else ours", ALICE),
        (f"Bearer {OWN_TOKEN_PREFIX}x", ALICE, ALICE, ALICE),
    ],
)
async def test_what_a_read_shows(
    configure: Configure, own: str | None, by_client: str, by_client_then_proxy: str, by_proxy: str
) -> None:
    """With a login of the operator's; the request of our own client says the same."""
    shown = []
    for precedence in ("client", "client-then-proxy", "proxy"):
        core = configure(**LOGIN, AUTH_PRECEDENCE=precedence)
        flow, exchange = await chosen(core, MANIFEST, own)
        assert exchange.endpoint is not None
        request = content_request("GET", flow, exchange, exchange.endpoint)  # type: ignore[arg-type]
        assert (request.access is None) is exchange.client_has_credentials
        assert (dict(request.headers).get("Authorization") is None) is (request.access is not None)
        shown.append(flow.request.headers["authorization"] + (", else ours" if request.fallback else ""))

    assert shown == [by_client, by_client_then_proxy, by_proxy]


@pytest.mark.parametrize("precedence", ["client", "client-then-proxy", "proxy"])
async def test_without_a_login_of_the_operators_the_clients_own_is_shown(configure: Configure, precedence: str) -> None:
    """Under any precedence."""
    core = configure(AUTH_PRECEDENCE=precedence)

    for own in (ANONYMOUS, OPAQUE, BOB):
        flow, exchange = await chosen(core, MANIFEST, own)
        assert flow.request.headers["authorization"] == own
        assert exchange.client_has_credentials
        request = content_request("GET", flow, exchange, exchange.endpoint)  # type: ignore[arg-type]
        assert request.opened_by is (OpenedBy.NOBODY if own is ANONYMOUS else OpenedBy.CLIENT)


PROOFS_AND_PUSHES = [
    ("GET", HUB, "/v2/"),
    ("HEAD", HUB, "/v2/"),
    ("GET", "auth.docker.io", "/token?service=registry.docker.io&account=bob"),
    ("GET", "auth.docker.io", PULL),
    ("POST", "auth.docker.io", "/token"),
    ("POST", HUB, "/v2/a/b/blobs/uploads/"),
    ("PUT", HUB, MANIFEST),
    ("DELETE", HUB, MANIFEST),
    ("HEAD", HUB, BLOB),
]


@pytest.mark.parametrize("precedence", ["client", "client-then-proxy", "proxy"])
async def test_what_may_be_a_proof_or_a_push_goes_as_it_is(configure: Configure, precedence: str) -> None:
    """`docker login` is judged by the registry, and a push is the client's own; nothing follows a refusal."""
    core = configure(**LOGIN, AUTH_PRECEDENCE=precedence, ALLOW_PUSH_WITH_OWN_AUTH="true")

    for method, host, path in PROOFS_AND_PUSHES:
        for own in (ANONYMOUS, OPAQUE, BOB):
            flow, exchange = await chosen(core, path, own, method, host)
            assert flow.response is None
            assert flow.request.headers["authorization"] == own, path
            assert (exchange.client_has_credentials, exchange.may_fall_back) == (True, False)


async def test_a_token_of_our_own_proves_nothing(configure: Configure) -> None:
    """At `/v2/` it is dropped, and nothing of the operator's comes in its place."""
    flow, exchange = await chosen(configure(**LOGIN), "/v2/", f"Bearer {OWN_TOKEN_PREFIX}x")

    assert "authorization" not in flow.request.headers
    assert exchange.credential is None


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io"])
async def test_the_names_of_docker_hub_are_one(configure: Configure, name: str) -> None:
    """A login under any of them takes the client's place under any other."""
    core = configure(AUTH_REGISTRIES=f"{name}:alice:secret", AUTH_PRECEDENCE="proxy")

    for asked in ("registry-1.docker.io", "index.docker.io"):
        flow, _ = await chosen(core, MANIFEST, BOB, host=asked)
        assert flow.request.headers["authorization"] == ALICE
    flow, _ = await chosen(core, PULL, None, host="auth.docker.io")
    assert flow.request.headers["authorization"] == ALICE


async def test_a_login_for_other_repositories_takes_nobodys_place(configure: Configure) -> None:
    """Nor does one that was refused lately."""
    elsewhere = configure(AUTH_REGISTRIES="docker.io/c:alice:secret", AUTH_PRECEDENCE="proxy")
    resting = configure(**LOGIN, AUTH_PRECEDENCE="proxy")
    resting.upstream.logins.rest(resting.settings.credentials[0], "a test")

    for core in (elsewhere, resting):
        flow, _ = await chosen(core, MANIFEST, BOB)
        assert flow.request.headers["authorization"] == BOB


async def test_what_a_client_sent_is_known(configure: Configure) -> None:
    """By its form, and by what was seen of tokens being given."""
    identities = configure().identities
    bob = await identities.of_login(Login(b"bob:builder"))
    identities.given("bobs", bob)
    identities.given("anybodys", NOBODY)

    kinds = [
        identities.kind_of(own)
        for own in (None, BOB, OPAQUE, ANONYMOUS, SOMEBODYS, "Bearer bobs", "Bearer anybodys", "garbage")
    ]
    assert kinds == [
        Own.NOTHING,
        Own.LOGIN,
        Own.UNKNOWN,
        Own.ANONYMOUS,
        Own.LOGIN,
        Own.LOGIN,
        Own.ANONYMOUS,
        Own.LOGIN,
    ]
    assert identities.kind_of(f"Bearer {identities.give(bob)}") is Own.NOTHING


class TestStaleLogins:
    """A refused login at a token server, on the way to a pull."""

    @staticmethod
    async def answered(core: Core, path: str = PULL, own: str | None = BOB, status: int = 401) -> http.HTTPFlow:
        """Return the flow of a token request when its server's answer has begun."""
        flow, _ = await chosen(core, path, own, host="auth.docker.io")
        flow.response = http.Response.make(status, b"", {"Transfer-Encoding": "chunked", "WWW-Authenticate": "Basic"})
        flow.response.stream = PassedBytes()
        await StaleLogins(core).responseheaders(flow)
        return flow

    @pytest.mark.parametrize("precedence", ["client-then-proxy", "proxy"])
    @pytest.mark.parametrize("status", [401, 403])
    async def test_it_goes_on_with_a_token_that_opens_nothing(
        self, configure: Configure, precedence: str, status: int
    ) -> None:
        """Our own: with it the client's reads show the operator's login, its `/v2/` shows nothing."""
        core = configure(**LOGIN, AUTH_PRECEDENCE=precedence)
        flow = await self.answered(core, status=status)
        assert flow.response is not None
        stream = flow.response.stream
        assert isinstance(stream, PassedBytes)

        body = stream(b"the server's") + stream(b" answer") + stream(b"")

        assert flow.response.status_code == 200
        assert list(flow.response.headers) == ["Content-Type", "Content-Length"]
        assert (len(body), stream.count) == (int(flow.response.headers["Content-Length"]), len(body))
        token = json.loads(body)["token"]
        assert token.startswith(OWN_TOKEN_PREFIX)
        read, exchange = await chosen(core, MANIFEST, f"Bearer {token}")
        assert read.request.headers["authorization"] == ALICE
        assert exchange.client == await core.identities.of(BOB)

    @pytest.mark.parametrize(
        ("settings", "path", "own", "status"),
        [
            pytest.param({"AUTH_PRECEDENCE": "client"}, PULL, BOB, 401, id="the client's login counts"),
            pytest.param({"AUTH_REGISTRIES": ""}, PULL, BOB, 401, id="there is no other"),
            pytest.param({"AUTH_REGISTRIES": "docker.io/c:x:y"}, PULL, BOB, 401, id="none for this repository"),
            pytest.param({}, "/token?service=x&account=bob", BOB, 401, id="docker login"),
            pytest.param({}, f"{PULL},push", BOB, 401, id="a push"),
            pytest.param({}, PULL, None, 401, id="the operator's own"),
            pytest.param({}, PULL, BOB, 200, id="not refused"),
            pytest.param({}, PULL, BOB, 503, id="an outage"),
            pytest.param({}, MANIFEST, BOB, 401, id="no token server"),
        ],
    )
    async def test_elsewhere_the_answer_stays(
        self, configure: Configure, settings: dict[str, str], path: str, own: str | None, status: int
    ) -> None:
        """`docker login` is never confirmed by anything but the registry."""
        core = configure(**{**LOGIN, "AUTH_PRECEDENCE": "proxy", **settings})

        flow = await self.answered(core, path, own, status)

        assert flow.response is not None
        assert flow.response.status_code == status
        assert type(flow.response.stream) is PassedBytes

    async def test_what_was_answered_here_is_left_alone(self, configure: Configure) -> None:
        """Nothing streams then."""
        core = configure(**LOGIN, AUTH_PRECEDENCE="proxy")
        flow, _ = await chosen(core, PULL, BOB, host="auth.docker.io")
        flow.response = http.Response.make(401)
        await StaleLogins(core).responseheaders(flow)

        assert flow.response.status_code == 401
