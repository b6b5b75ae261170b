"""Clients are recognised: by their login, and by the login that their token was given to."""

import base64
import json

import pytest
from mitmproxy import http

from regproxy.policy.identities import NOBODY, Identity, IdentityKey
from regproxy.stack import client_identities
from regproxy.stack.access_log import PassedBytes
from regproxy.stack.auth_injector import AuthInjector
from regproxy.stack.client_identities import ClientIdentities, is_own_token
from regproxy.stack.client_tokens import FORM_LIMIT_BYTES, ClientTokens
from regproxy.stack.core import Core
from regproxy.stack.interception import Interception
from regproxy.stack.push_bypass import PushBypass
from unit.stack.conftest import Configure, make_flow

ALICE = "Basic " + base64.b64encode(b"alice:secret").decode()
BOB = "Basic " + base64.b64encode(b"bob:secret").decode()


@pytest.fixture
def identities() -> ClientIdentities:
    """Return what knows nobody yet."""
    return ClientIdentities(IdentityKey(b"k" * 32))


class TestRecognising:
    async def test_a_login_is_known_at_once_after_the_first_time(self, identities: ClientIdentities) -> None:
        """The hash takes 20 ms once; a warm read does not wait for it."""
        assert identities.recall(ALICE) is None
        alice = await identities.of(ALICE)
        assert identities.recall(ALICE) == alice
        assert alice != await identities.of(BOB)
        assert not alice.is_nobody

    async def test_without_a_login_one_is_nobody(self, identities: ClientIdentities) -> None:
        """And so is the holder of an anonymous JSON web token."""
        payload = base64.urlsafe_b64encode(json.dumps({"sub": "", "access": []}).encode()).decode().rstrip("=")
        assert identities.recall(None) == NOBODY
        assert identities.recall(f"Bearer h.{payload}.s") == NOBODY

    async def test_a_token_is_its_owners(self, identities: ClientIdentities) -> None:
        """Whoever it says it is: nobody here could check that."""
        alice = await identities.of(ALICE)
        identities.given("opaque", alice)
        identities.given("anonymous", NOBODY)
        assert identities.recall("Bearer opaque") == alice
        assert identities.recall("Bearer anonymous") == NOBODY

    async def test_an_unknown_token_is_whoever_has_it(self, identities: ClientIdentities) -> None:
        """The same one each time, and no one else."""
        first, second = identities.recall("Bearer one"), identities.recall("Bearer two")
        assert first is not None
        assert first == identities.recall("bearer one")
        assert first != second
        assert not first.is_nobody

    async def test_own_tokens(self, identities: ClientIdentities) -> None:
        """They are recognised, also after a restart that has forgotten whose they were."""
        alice = await identities.of(ALICE)
        token = identities.give(alice)
        assert is_own_token(f"Bearer {token}")
        assert identities.recall(f"Bearer {token}") == alice
        assert ClientIdentities(IdentityKey(b"k" * 32)).recall(f"Bearer {token}") == NOBODY
        assert identities.give(alice) != token

    async def test_memory_is_bounded(self, identities: ClientIdentities, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest goes; the one in use stays."""
        monkeypatch.setattr(client_identities, "KNOWN_TOKENS", 2)
        for token in ("a", "b"):
            identities.given(token, NOBODY)
        identities.recall("Bearer a")
        identities.given("c", NOBODY)
        assert identities.recall("Bearer a") == NOBODY
        assert identities.recall("Bearer b") != NOBODY

    async def test_what_is_not_bearer_or_basic_is_somebodys(self, identities: ClientIdentities) -> None:
        """An unknown scheme must not pass for no login."""
        assert not (await identities.of("Negotiate abc")).is_nobody


async def answered(
    core: Core, method: str, own: str | None, answer: bytes, form: bytes = b"", status: int = 200
) -> http.HTTPFlow:
    """Let a token request and its answer pass the stack, in pieces of ten bytes."""
    fields = {} if own is None else {"Authorization": own}
    if form:
        fields["Content-Length"] = str(len(form))
    flow = make_flow(method, "auth.docker.io", 443, "/token?service=registry.docker.io", fields)
    injector, watch = AuthInjector(core), ClientTokens(core)
    Interception(core).requestheaders(flow)
    PushBypass(core).requestheaders(flow)
    await injector.requestheaders(flow)
    watch.requestheaders(flow)
    if callable(flow.request.stream):
        for start in range(0, len(form), 10):
            assert flow.request.stream(form[start : start + 10]) == form[start : start + 10]
        flow.request.stream(b"")
    flow.response = http.Response.make(status)
    flow.response.stream = PassedBytes()
    await watch.responseheaders(flow)
    assert callable(flow.response.stream)
    for start in range(0, len(answer), 10):
        assert flow.response.stream(answer[start : start + 10]) == answer[start : start + 10]
    return flow


class TestWatching:
    """The addon between clients and token servers."""

    async def test_a_token_is_known_before_its_client_has_it_whole(self, configure: Configure) -> None:
        """Whichever of the two names it has; the operator's password in the place of none makes it nobody's."""
        core = configure(AUTH_REGISTRIES="docker.io:op:p")
        await answered(core, "GET", ALICE, b'{"token":"of-alice"}')
        await answered(core, "GET", None, b'{"access_token":"of-nobody"}\n')
        assert core.identities.recall("Bearer of-alice") == await core.identities.of(ALICE)
        assert core.identities.recall("Bearer of-nobody") == NOBODY

    async def test_a_form_says_whose_it_is(self, configure: Configure) -> None:
        """Containerd logs in so; nothing is learnt from a form without a login, or one that is too long."""
        core = configure()
        form = b"grant_type=password&username=alice&password=secret"
        await answered(core, "POST", None, b'{"access_token":"of-alice"}', form)
        await answered(core, "POST", None, b'{"access_token":"by-code"}', b"grant_type=authorization_code&code=1")
        await answered(core, "POST", None, b'{"access_token":"long"}', form + b"&x=" + b"y" * 2 * FORM_LIMIT_BYTES)
        assert core.identities.recall("Bearer of-alice") == await core.identities.of(ALICE)
        for token in ("by-code", "long"):
            assert core.identities.recall(f"Bearer {token}") not in (NOBODY, await core.identities.of(ALICE))

    @pytest.mark.parametrize("status", [401, 500])
    async def test_a_refusal_gives_nothing(self, configure: Configure, status: int) -> None:
        """Whatever stands in its body."""
        core = configure()
        await answered(core, "GET", ALICE, b'{"token":"t"}', status=status)
        alice: Identity = await core.identities.of(ALICE)
        assert core.identities.recall("Bearer t") != alice

    async def test_answers_are_to_come_uncompressed(self, configure: Configure) -> None:
        """Go's clients ask for gzip."""
        flow = await answered(configure(), "GET", ALICE, b"{}")
        assert flow.request.headers["accept-encoding"] == "identity"
