"""The token exchange, against servers that play registry and token server, well and badly."""

import asyncio
import dataclasses
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from lab.pki import Pki
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.credential_helper import CredentialHelpers
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.ecr import EcrLogins
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.logins import Logins
from regproxy.origin.quota import Quotas
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.resolver import AddressForbiddenError, CheckedResolver, for_inside
from regproxy.origin.tokens import CREDENTIAL_REST_S, REFUSAL_REST_S, TOKEN_ANSWER_LIMIT_BYTES, Tokens
from regproxy.policy.credentials import Credential, basic_header
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.quota import retry_after_s
from regproxy.policy.redirects import Url
from unit.origin.conftest import OPTIONS, Serve
from unit.origin.token_world import Speak, World, says

SECRET = "hunter2-Zq7"
ALICE = Credential("registry.test", None, "alice", SECRET)
HOSTS = ("registry.test", "auth.test", "auth.elsewhere.example", "cdn.test")

type Build = Callable[..., Awaitable[World]]


def source(*credentials: Credential) -> CredentialSource:
    """Return what has these credentials and no other."""
    return CredentialSource(credentials, None, CredentialHelpers({}), EcrLogins())


@pytest.fixture
async def build(serve: Serve, pki: Pki) -> AsyncIterator[Build]:
    """Yield what makes a world; both servers have names, and plain http unless the registry has `tls`."""
    async with AsyncExitStack() as stack:

        async def make(
            *credentials: Credential, realm: str = "registry.test", trusted: str = "", tls: bool = False
        ) -> World:
            upstream = AuthorizedUpstream(
                dataclasses.replace(
                    OPTIONS,
                    mappings=tuple(UpstreamMapping(host, "127.0.0.1") for host in HOSTS),
                    ca_file=pki.ca_file if tls else None,
                ),
                source(),
            )
            upstream.open()
            stack.push_async_callback(upstream.close)
            world = World(upstream, Url("http", "registry.test", 1, "/"))
            registry_port, realm_port = await serve(world.registry_answers, tls=tls), await serve(world.realm_answers)
            world.registry = Url("https" if tls else "http", "registry.test", registry_port, "/")
            world.challenge = f'Bearer realm="http://{realm}:{realm_port}/token?x=1",service="a, b"'
            patterns = tuple(HostPattern.parse(host) for host in trusted.split())
            tokens = Tokens(upstream, lambda: world.clock.now_s)
            upstream.quotas = Quotas(lambda: world.clock.now_s)
            upstream.logins = Logins(tokens, source(*credentials), patterns, lambda: world.clock.now_s)
            return world

        yield make


class TestExchange:
    async def test_an_anonymous_token_is_got_once_and_shown_at_once_from_then_on(self, build: Build) -> None:
        """The first request learns the challenge, the second needs no 401."""
        world = await build()

        assert [await world.get(), await world.get()] == [200, 200]
        assert [shown is not None for _, shown in world.at_registry] == [False, True, True]
        (asked,) = world.at_realm
        assert (asked.method, asked.authorization) == ("GET", None)
        assert asked.form == {
            "x": "1", "service": "a, b", "scope": "repository:a:pull", "client_id": "registry-proxy"
        }  # fmt: skip

    async def test_a_repository_has_a_token_of_its_own(self, build: Build) -> None:
        """A known token server is asked before the registry has to say 401; tokens do not mix."""
        world = await build(ALICE)

        assert [await world.get("a"), await world.get("b"), await world.get("a")] == [200, 200, 200]
        assert [asked.form["scope"] for asked in world.at_realm] == ["repository:a:pull", "repository:b:pull"]
        assert {asked.authorization for asked in world.at_realm} == {basic_header(ALICE)}
        assert [asked.form["account"] for asked in world.at_realm] == ["alice", "alice"]
        # the password went to the registry once, before its challenge was known
        assert [shown == basic_header(ALICE) for _, shown in world.at_registry] == [True, False, False, False]

    async def test_the_challenge_cannot_widen_the_scope(self, build: Build) -> None:
        """Whatever a registry wishes, one repository's pull is asked for."""
        world = await build(ALICE)
        world.challenge += ',scope="repository:a:pull,push repository:other:* registry:catalog:*"'

        await world.get("a")

        assert [asked.form["scope"] for asked in world.at_realm] == ["repository:a:pull"]

    async def test_a_bearer_challenge_is_found_among_others(self, build: Build) -> None:
        """Several challenges in one field; the token is preferred to the password."""
        world = await build(ALICE)
        world.challenge = f'Basic realm="x, y", {world.challenge}'

        assert await world.get() == 200
        assert len(world.at_realm) == 1

    async def test_everybody_waits_for_the_same_token(self, build: Build) -> None:
        """As the connections of one large blob do."""
        world = await build()

        assert await asyncio.gather(*(world.get() for _ in range(5))) == [200] * 5
        assert len(world.at_realm) == 1

    async def test_a_token_is_not_shown_to_whom_the_registry_redirects_to(self, build: Build, serve: Serve) -> None:
        """Nor is what that one demands taken for the registry's challenge."""
        world = await build(ALICE)
        await world.get("a")
        seen: list[str | None] = []

        async def storage(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.headers.get("Authorization"))
            return web.Response(status=401, headers={"WWW-Authenticate": world.challenge})

        port = await serve(storage)
        world.registry_speaks = says(307, Location=f"http://cdn.test:{port}/b")

        assert await world.get("a") == 401
        assert seen == [None]
        assert len(world.at_realm) == 1

    async def test_a_request_with_the_clients_own_login_is_left_alone(self, build: Build) -> None:
        """Its 401 is the client's to answer."""
        world = await build(ALICE)
        url = dataclasses.replace(world.registry, target="/v2/a/x")

        answer = await world.upstream.ask(UpstreamRequest("GET", url, (("Authorization", "Bearer own"),)), 1000)

        assert answer.status == 401
        assert world.at_registry == [("/v2/a/x", "Bearer own")]
        assert world.at_realm == []

    async def test_a_challenge_that_is_wanted_is_not_answered(self, build: Build) -> None:
        """The ping of a client that has to log in by itself; later it does not cost a password either."""
        world = await build(ALICE)

        assert [await world.get(takes_tokens=False) for _ in range(2)] == [401, 401]
        assert [shown for _, shown in world.at_registry] == [basic_header(ALICE), None]
        assert world.at_realm == []


class TestLifetime:
    async def test_a_token_is_renewed_after_four_fifths_of_its_life(self, build: Build) -> None:
        """Not before, and without a 401."""
        world = await build()
        for passed_s, tokens in ((0, 1), (79, 1), (81, 2), (100, 2), (162, 3)):
            world.clock.now_s = 1000.0 + passed_s
            assert await world.get() == 200
            assert len(world.issued) == tokens
        assert [shown for _, shown in world.at_registry].count(None) == 1

    async def test_a_token_without_a_lifetime_is_good_for_a_minute(self, build: Build) -> None:
        """The specification's default."""
        world = await build()
        world.lifetime_s = None
        for passed_s, tokens in ((0, 1), (47, 1), (49, 2)):
            world.clock.now_s = 1000.0 + passed_s
            await world.get()
            assert len(world.issued) == tokens

    async def test_a_token_is_used_to_its_end_while_there_is_no_new_one(self, build: Build) -> None:
        """And no longer."""
        world = await build()
        await world.get()
        world.realm_speaks = says(503)

        world.clock.now_s += 90
        assert await world.get() == 200
        world.clock.now_s += 11
        with pytest.raises(UpstreamUnavailable, match="503 instead of a token"):
            await world.get()

    async def test_a_token_that_the_registry_forgot_is_replaced(self, build: Build) -> None:
        """One 401, one new token, the content."""
        world = await build()
        await world.get()
        world.issued.clear()
        world.issued.append("gone")  # so that the next one is another

        assert await world.get() == 200
        assert len(world.at_realm) == 2

    async def test_a_registry_that_refuses_every_token_is_asked_twice_and_the_token_server_left_alone(
        self, build: Build
    ) -> None:
        """As for a repository that nobody may see; after a minute a new token is tried."""
        world = await build(ALICE)
        await world.get("b")
        world.at_registry.clear()
        world.at_realm.clear()
        world.registry_speaks = says(401, WWW_Authenticate=world.challenge)

        assert [await world.get(), await world.get(), await world.get()] == [401, 401, 401]
        assert (len(world.at_registry), len(world.at_realm)) == (3, 1)
        world.clock.now_s += REFUSAL_REST_S + 1
        assert await world.get() == 401
        assert (len(world.at_registry), len(world.at_realm)) == (5, 2)

    async def test_a_registry_that_has_begun_to_refuse_costs_one_new_token(self, build: Build) -> None:
        """The old one may have run out; when the new one is refused too, it was not that."""
        world = await build()
        await world.get()
        world.registry_speaks = says(401, WWW_Authenticate=world.challenge)

        assert [await world.get(), await world.get(), await world.get()] == [401, 401, 401]
        assert len(world.at_realm) == 2

    async def test_a_repository_that_is_closed_does_not_cost_the_login(self, build: Build) -> None:
        """The login was right: it goes on opening the others."""
        world = await build(ALICE)
        world.registry_speaks = says(401, WWW_Authenticate=world.challenge)
        await world.get("closed")
        world.registry_speaks = None

        await world.get("a")

        assert world.at_realm[-1].authorization == basic_header(ALICE)


class TestRefused:
    async def test_a_wrong_password_is_tried_once_and_said_loudly(
        self, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The pulls go on anonymously; after ten minutes it is tried again. Docker Hub locks accounts."""
        world = await build(ALICE)

        async def know_nobody(request: web.BaseRequest) -> web.StreamResponse | None:
            return web.Response(status=401) if "Authorization" in request.headers else None

        world.realm_speaks = know_nobody
        with caplog.at_level(logging.INFO):
            assert [await world.get(name) for name in "aabc"] == [200] * 4
        assert [asked.authorization is not None for asked in world.at_realm] == [True, False, False, False]
        (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert "registry.test" in said
        assert "user=alice" in said
        assert SECRET not in caplog.text
        world.clock.now_s += CREDENTIAL_REST_S + 1
        await world.get("d")
        assert [asked.authorization is not None for asked in world.at_realm[4:]] == [True, False]

    async def test_many_pulls_at_once_are_one_wrong_password(self, build: Build) -> None:
        """Of as many repositories."""
        world = await build(ALICE)

        async def know_nobody(request: web.BaseRequest) -> web.StreamResponse | None:
            await asyncio.sleep(0.01)
            return web.Response(status=401) if "Authorization" in request.headers else None

        world.realm_speaks = know_nobody

        assert await asyncio.gather(*(world.get(name) for name in "abcdef")) == [200] * 6
        assert [asked.authorization is not None for asked in world.at_realm].count(True) == 1

    async def test_a_repository_that_the_token_server_refuses_does_not_cost_the_login(self, build: Build) -> None:
        """GitHub answers 403 for what this user may not see."""
        world = await build(ALICE)

        async def refuse_a(request: web.BaseRequest) -> web.StreamResponse | None:
            is_a = request.query["scope"] == "repository:a:pull"
            return web.Response(status=403) if is_a and "Authorization" in request.headers else None

        world.realm_speaks = refuse_a
        assert [await world.get(name) for name in "aab"] == [200] * 3
        assert [asked.authorization is not None for asked in world.at_realm] == [True, False, True]

    async def test_a_token_server_that_has_nothing_for_anybody_leaves_the_401(self, build: Build) -> None:
        """The client may have a login of its own; it is not asked again at once."""
        world = await build()
        world.realm_speaks = says(401)

        assert [await world.get(), await world.get()] == [401, 401]
        assert len(world.at_realm) == 1

    async def test_basic_is_answered_with_the_password(self, build: Build) -> None:
        """Also by a registry that wanted tokens until now."""
        world = await build(ALICE)
        await world.get()
        world.issued.clear()
        world.taken = {basic_header(ALICE)}
        world.challenge = 'Basic realm="x"'

        assert [await world.get(), await world.get()] == [200, 200]

    async def test_a_password_that_a_registry_refuses_rests(self, build: Build) -> None:
        """The request goes on anonymously, once, and the next ones at once."""
        world = await build(ALICE)
        world.challenge = 'Basic realm="x"'

        assert [await world.get(), await world.get()] == [401, 401]
        assert [shown for _, shown in world.at_registry] == [basic_header(ALICE), None, None]


class TestBrokenTokenServers:
    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            (200, b"x" * (TOKEN_ANSWER_LIMIT_BYTES + 1), "more than"),
            (200, b"{}", "no token in its answer"),
            (200, b'{"token": "a\\r\\nX: y"}', "no token in its answer"),
            (200, b'{"token": 7, "access_token": ""}', "no token in its answer"),
            (200, b"<html>", "not JSON"),
            (200, b"[" * 100_000, "not JSON"),
            (200, b"[]", "not a JSON object"),
            (302, b"", "redirects"),
            (500, b"", "500"),
        ],
        ids=["huge", "empty", "header injection", "no text", "HTML", "deep", "list", "redirect", "500"],
    )
    async def test_what_is_no_token_is_an_outage(self, build: Build, status: int, body: bytes, words: str) -> None:
        """The caller may serve what it has; nothing of the answer is repeated, and nobody hammers."""
        world = await build(ALICE)
        world.realm_speaks = says(status, body, Location="http://cdn.test:1/")

        for _ in range(2):
            with pytest.raises(UpstreamUnavailable, match=words) as raised:
                await world.get()
            assert SECRET not in str(raised.value)
        assert len(world.at_realm) == 1
        world.realm_speaks = None
        world.clock.now_s += 3
        assert await world.get() == 200

    async def test_retry_after_is_kept(self, build: Build) -> None:
        """The server said when."""
        world = await build()
        world.realm_speaks = says(429, Retry_After="120")
        for passed_s, asked in ((0, 1), (119, 1), (121, 2)):
            world.clock.now_s = 1000.0 + passed_s
            with pytest.raises(UpstreamUnavailable, match="429"):
                await world.get()
            assert len(world.at_realm) == asked

    @pytest.mark.parametrize(
        ("text", "wait_s"),
        [
            ("120", 120),
            ("99999", 3600),
            ("Tue, 14 Nov 2023 22:13:30 GMT", 10),
            ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
            ("soon", None),
            ("-1", None),
            ("", None),
        ],
    )
    def test_retry_after_has_two_forms(self, text: str, wait_s: float | None) -> None:
        """Seconds or a date."""
        assert retry_after_s({"Retry-After": text}, 1_700_000_000.0) == wait_s

    async def test_what_is_open_to_all_needs_no_token_server(self, build: Build) -> None:
        """Only some repositories want a token; their token server is down."""
        world = await build()
        await world.get("a")
        world.realm_speaks, world.registry_speaks = says(503), says(200)

        assert await world.get("open") == 200
        assert world.at_registry[-1] == ("/v2/open/x", None)

    async def test_a_server_that_is_gone_is_an_outage(self, build: Build) -> None:
        """Also for who has no login."""
        world = await build()
        world.challenge = 'Bearer realm="http://auth.test:1/token"'

        with pytest.raises(UpstreamUnavailable, match=r"http://auth\.test:1 cannot be reached"):
            await world.get()


class TestRealms:
    """The registry of these worlds is another host than its token server."""

    async def test_a_password_does_not_leave_the_registrys_domain(self, build: Build) -> None:
        """The token is asked for anonymously."""
        world = await build(ALICE, realm="auth.elsewhere.example")

        assert await world.get() == 200
        assert [asked.authorization for asked in world.at_realm] == [None]

    @pytest.mark.parametrize("trusted", ["auth.elsewhere.example", "*.elsewhere.example"])
    async def test_a_trusted_token_server_gets_the_password(self, build: Build, trusted: str) -> None:
        """TRUSTED_HOSTS."""
        world = await build(ALICE, realm="auth.elsewhere.example", trusted=trusted)

        await world.get()

        assert [asked.authorization for asked in world.at_realm] == [basic_header(ALICE)]

    async def test_a_token_server_gets_the_login_that_it_has_itself(self, build: Build) -> None:
        """The operator configured it for that host."""
        bob = Credential("auth.elsewhere.example", None, "bob", "b")
        world = await build(ALICE, bob, realm="auth.elsewhere.example")

        await world.get()

        assert [asked.authorization for asked in world.at_realm] == [basic_header(bob)]

    async def test_an_https_registry_gets_no_token_over_plain_http(
        self, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client gets the challenge; the log says once why."""
        world = await build(ALICE, tls=True)

        assert [await world.get(), await world.get()] == [401, 401]
        assert world.at_realm == []
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "is not https" in caplog.text

    @pytest.mark.parametrize("address", ["169.254.169.254", "10.255.255.1", "[::1]", "metadata.test"])
    async def test_a_token_server_inside_our_network_is_not_asked(
        self, build: Build, caplog: pytest.LogCaptureFixture, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By address or by name; the client gets the challenge, the operator the remedy."""
        world = await build(ALICE)

        async def nowhere(*_: object, **__: object) -> bool:
            return False

        monkeypatch.setattr(world.upstream, "is_inside", nowhere)
        _lead(monkeypatch, "metadata.test", "169.254.169.254")
        world.challenge = f'Bearer realm="http://{address}:1/token"'

        assert [await world.get(), await world.get()] == [401, 401]
        assert caplog.text.count("TRUSTED_HOSTS") == 1

    @pytest.mark.parametrize(("realm", "is_inside"), [("auth.test", True), ("registry.test", False)])
    async def test_a_registry_of_our_network_may_have_its_token_server_there(
        self, build: Build, monkeypatch: pytest.MonkeyPatch, *, realm: str, is_inside: bool
    ) -> None:
        """Only this one request may go there, and only if it is another host than the registry."""
        world = await build(ALICE, realm=realm)
        seen: list[tuple[str, bool]] = []
        resolve = CheckedResolver.resolve

        async def remember(self: CheckedResolver, host: str, *rest: Any, **named: Any) -> list[Any]:
            seen.append((host, for_inside.get()))
            return await resolve(self, host, *rest, **named)

        monkeypatch.setattr(CheckedResolver, "resolve", remember)

        assert await world.get() == 200
        assert seen[0] == ("registry.test", False)
        assert seen[1] == (realm, is_inside)
        assert not for_inside.get()

    @pytest.mark.parametrize(
        ("address", "is_allowed"),
        [("10.255.255.1", True), ("127.0.0.1", False), ("169.254.169.254", False), ("93.184.216.34", True)],
    )
    async def test_inside_means_private_addresses_only(
        self, monkeypatch: pytest.MonkeyPatch, *, address: str, is_allowed: bool
    ) -> None:
        """The metadata service is nobody's token server, nor is this machine."""
        _lead(monkeypatch, "auth.corp.test", address)
        resolver = CheckedResolver((), (), socket.AF_INET)
        inside = for_inside.set(True)
        try:
            found = await resolver.resolve("auth.corp.test", 443)
        except AddressForbiddenError:
            found = []
        finally:
            for_inside.reset(inside)

        assert bool(found) is is_allowed
        assert await resolver.is_inside("auth.corp.test", 443) is (address != "93.184.216.34")
        assert not await resolver.is_inside("nowhere.invalid", 443)


def _lead(monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    """Let one name have an address, and no other name any."""

    async def getaddrinfo(_self: object, host: str, port: int, **_: object) -> list[object]:
        if host not in (name, "127.0.0.1"):
            raise OSError(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address if host == name else host, port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


class TestForms:
    @pytest.mark.parametrize("status", [404, 405])
    async def test_a_server_without_the_get_form_is_asked_by_post(self, build: Build, status: int) -> None:
        """OAuth2; the password is in the body, in no URL and no field."""
        world = await build(ALICE)
        world.realm_speaks = _no("GET", status)

        assert await world.get() == 200
        get, post = world.at_realm
        assert (get.method, post.method, post.authorization) == ("GET", "POST", None)
        assert post.form == {
            "service": "a, b",
            "scope": "repository:a:pull",
            "client_id": "registry-proxy",
            "grant_type": "password",
            "username": "alice",
            "password": SECRET,
        }

    async def test_an_identity_token_is_a_refresh_token(self, build: Build) -> None:
        """Never a password, and nothing that a registry is shown."""
        identity = Credential("registry.test", None, "<token>", "", identity_token=SECRET)
        world = await build(identity)

        assert await world.get() == 200
        (post,) = world.at_realm
        assert (post.method, post.form["grant_type"], post.form["refresh_token"]) == ("POST", "refresh_token", SECRET)
        assert world.at_registry[0] == ("/v2/a/x", None)
        assert SECRET not in repr(identity)

    @pytest.mark.parametrize("status", [400, 401, 404, 405])
    async def test_a_password_beside_an_identity_token_is_the_other_way(self, build: Build, status: int) -> None:
        """For servers that do not know the form."""
        world = await build(dataclasses.replace(ALICE, identity_token="identity"))
        world.realm_speaks = _no("POST", status)

        assert await world.get() == 200
        assert [asked.method for asked in world.at_realm] == ["POST", "GET"]

    async def test_an_anonymous_request_is_never_a_post(self, build: Build) -> None:
        """There is nothing to send."""
        world = await build()
        world.realm_speaks = _no("GET", 405)

        assert await world.get() == 401
        assert [asked.method for asked in world.at_realm] == ["GET"]


def _no(method: str, status: int) -> Speak:
    """Return what refuses one method."""

    async def speak(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=status) if request.method == method else None

    return speak
