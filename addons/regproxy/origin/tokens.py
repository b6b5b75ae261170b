"""Asks token servers, and keeps what they gave for as long as it is good.

distribution, "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST). A redirect of a
token server is not followed: the request may carry a password. What a server refused or failed to do is not asked again
at once, for Docker Hub locks accounts that fail repeatedly (spec upstreams 3.1).
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

from regproxy.origin.client import Upstream
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamAway, UpstreamUnavailable
from regproxy.origin.patience import limit_s, patience, within
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.resolver import for_inside
from regproxy.origin.single_flight import SingleFlight
from regproxy.origin.token_answers import parse_token_answer
from regproxy.policy.breaker import Need
from regproxy.policy.credentials import Credential, basic_header
from regproxy.policy.freshness import Status, TimedOut, stale_allowed
from regproxy.policy.quota import retry_after_s
from regproxy.policy.realms import Realm
from regproxy.policy.redirects import REDIRECT_STATUSES, Url

TOKEN_ANSWER_LIMIT_BYTES = 1024 * 1024
"""Tokens of Google's registries are tens of kilobytes (spec security 3.3: at most 1 MiB)."""

TOKEN_LIMIT_S = 15.0
"""dockerd waits so long for `/v2/`; a token server that needs longer is as good as away."""

REFRESH_AFTER = 0.8
"""The part of a token's life after which a new one is asked for (contract A1)."""

FAILURE_REST_S = 2.0
"""How long a token server that failed is not asked for the same thing; less than the retries of one download."""

REFUSAL_REST_S = 60.0
"""How long what was refused for another reason than a wrong password is not asked for again."""

CREDENTIAL_REST_S = 600.0
"""How long a refused credential is not tried again: as long as Docker Hub locks an account."""

MAX_TOKENS = 1000
CLIENT_ID = "registry-proxy"


class TokenRefused(Exception):  # noqa: N818 - the server's decision
    """The token server answered and gave no token. The message names the server, the user and the status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is good for: nothing else may be opened with it (contract A1)."""

    registry: Url
    """Its root; the only origin that the token is sent to."""
    realm: Url
    service: str
    scope: str
    credential: Credential | None
    """None for an anonymous token."""

    @classmethod
    def of(cls, registry: Url, realm: Realm, scope: str, credential: Credential | None) -> "TokenKey":
        """Make the key of a registry's token."""
        root = Url(registry.scheme, registry.host, registry.port, "/")
        return cls(root, realm.url, realm.service, scope, credential)


@dataclass(frozen=True, slots=True)
class Token:
    """A token in use. Times are of the monotonic clock, in seconds."""

    value: str = field(repr=False)
    refresh_at_s: float
    ends_at_s: float


@dataclass(frozen=True, slots=True)
class _Rest:
    """What a question came to, until it may be asked again."""

    error: TokenRefused | UpstreamUnavailable
    until_s: float


class Bounded[Key: Hashable, Value](OrderedDict[Key, Value]):
    """Keeps the newest entries only: names and scopes come from clients, who must not fill the memory."""

    def __init__(self, most: int = MAX_TOKENS) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            del self[next(iter(self))]


class Tokens:
    """The tokens of all registries."""

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._clock = clock
        self._tokens: Bounded[TokenKey, Token] = Bounded()
        self._rests: Bounded[TokenKey, _Rest] = Bounded()
        self._flights: SingleFlight[tuple[TokenKey, Need], Token] = SingleFlight()

    def known(self, key: TokenKey) -> Token | None:
        """Return a token that needs no new one yet."""
        token = self._tokens.get(key)
        if token is None or self._clock() >= token.refresh_at_s:
            return None
        self._tokens.move_to_end(key)
        return token

    async def get(self, key: TokenKey) -> Token:
        """Return a token, from memory or its server. Raises `TokenRefused`, `UpstreamUnavailable`.

        A token in the last fifth of its life is used on while its server gives no new one.
        """
        token = self.known(key)
        if token is not None:
            return token
        try:
            # Who can do without waits for no one that has more patience.
            return await self._flights.run((key, patience.get().need), lambda: self._ask(key))
        except UpstreamUnavailable:
            token = self._tokens.get(key)
            if token is not None and self._clock() < token.ends_at_s:
                return token
            raise

    def forget(self, key: TokenKey, value: str) -> None:
        """Drop a token that its registry did not take, unless another one has come in its place."""
        token = self._tokens.get(key)
        if token is not None and token.value == value:
            del self._tokens[key]

    async def try_login(self, key: TokenKey, user_agent: str) -> None:
        """Ask for a token and forget it. Raises as `get`; asks at once, whatever was refused before."""
        async with self._limited(key):
            self._read(key, await self._answer(key, (("User-Agent", user_agent),)))

    @contextlib.asynccontextmanager
    async def _limited(self, key: TokenKey) -> AsyncIterator[None]:
        """Ask within the time that a client waits. Raises `UpstreamUnavailable` when it is over."""
        before = for_inside.set(False)
        try:
            async with within(limit_s(TOKEN_LIMIT_S), patience.get().need):
                # A registry of our own network has its token server there, too.
                is_other = key.realm.host != key.registry.host
                for_inside.set(is_other and await self._upstream.is_inside(key.registry))
                yield
        except TimeoutError:
            raise UpstreamUnavailable(f"{key.realm.origin} gave no token in time", TimedOut()) from None
        finally:
            for_inside.reset(before)

    async def _ask(self, key: TokenKey) -> Token:
        now_s = self._clock()
        rest = self._rests.get(key)
        if rest is not None and now_s < rest.until_s:
            # A new one each time: a traceback would grow on one that is raised again and again.
            raise _copied(rest.error) from rest.error.__cause__
        try:
            async with self._limited(key):
                answer = await self._answer(key)
            token = self._read(key, answer)
        except TokenRefused as error:
            wrong_password = key.credential is not None and error.status == 401
            self._rest(key, error, CREDENTIAL_REST_S if wrong_password else REFUSAL_REST_S)
            raise
        except UpstreamAway:
            raise  # it was not asked: there is nothing to rest from
        except UpstreamUnavailable as error:
            self._rest(key, error, FAILURE_REST_S)
            raise
        self._rests.pop(key, None)
        self._tokens[key] = token
        return token

    def _rest(self, key: TokenKey, error: TokenRefused | UpstreamUnavailable, rest_s: float) -> None:
        until_s = self._clock() + rest_s
        earlier = self._rests.get(key)
        # A `Retry-After` that `_read` has set stands.
        self._rests[key] = _Rest(error, until_s if earlier is None else max(until_s, earlier.until_s))

    async def _answer(self, key: TokenKey, fields: tuple[tuple[str, str], ...] = ()) -> Answer:
        """Ask by the form that the credential needs, and by the other one where the server does not know it."""
        credential = key.credential
        if credential is not None and credential.identity_token:
            answer = await self._send(post_request(key), fields)
            if answer.status not in (400, 401, 404, 405) or not credential.password:
                return answer
            return await self._send(get_request(key), fields)
        answer = await self._send(get_request(key), fields)
        if answer.status in (404, 405) and credential is not None:
            return await self._send(post_request(key), fields)
        return answer

    async def _send(self, request: UpstreamRequest, fields: tuple[tuple[str, str], ...]) -> Answer:
        try:
            request = replace(request, headers=(*request.headers, *fields))
            return await self._upstream.ask(request, TOKEN_ANSWER_LIMIT_BYTES)
        except AnswerTooLarge as error:
            raise UpstreamUnavailable(f"{error}, which is no token", Status(502), passing=False) from error

    def _read(self, key: TokenKey, answer: Answer) -> Token:
        """Say what an answer means. Raises `TokenRefused`, `UpstreamUnavailable`."""
        origin, status = key.realm.origin, answer.status
        if status == 200:
            now_s = self._clock()
            try:
                issued = parse_token_answer(answer.body, time.time())
            except ValueError as error:
                raise UpstreamUnavailable(f"{origin} gave no token: {error}", Status(502), passing=False) from None
            return Token(issued.token, now_s + issued.lifetime_s * REFRESH_AFTER, now_s + issued.lifetime_s)
        if status in REDIRECT_STATUSES:
            raise UpstreamUnavailable(
                f"{origin} redirects token requests, which is not followed", Status(502), passing=False
            )
        if stale_allowed(Status(status)) or status < 400:
            wait_s = retry_after_s(answer.headers, time.time())
            failed = UpstreamUnavailable(
                f"{origin} answered {status} instead of a token",
                Status(status),
                retry_at_s=None if wait_s is None else self._clock() + wait_s,
            )
            if wait_s is not None:
                self._rest(key, failed, wait_s)
            raise failed
        who = "an anonymous client" if key.credential is None else f"the login user={key.credential.username}"
        raise TokenRefused(f"{origin} answered {status} and gives {who} no token", status)


def get_request(key: TokenKey) -> UpstreamRequest:
    """Ask as the token specification has it; the password is Basic, in no URL."""
    fields = {"service": key.service, "scope": key.scope, "client_id": CLIENT_ID}
    headers: tuple[tuple[str, str], ...] = ()
    if key.credential is not None:
        fields["account"] = key.credential.username
        headers = (("Authorization", basic_header(key.credential)),)
    query = urlencode({name: text for name, text in fields.items() if text}, quote_via=quote, safe="")
    target = f"{key.realm.target}{'&' if '?' in key.realm.target else '?'}{query}"
    url = Url(key.realm.scheme, key.realm.host, key.realm.port, target)
    return UpstreamRequest("GET", url, headers, follow_redirects=False, owner=key.credential)


def post_request(key: TokenKey) -> UpstreamRequest:
    """Ask as OAuth2 has it, by refresh token or by password.

    `access_type=offline` is not asked for: a refresh token that nobody uses is one more secret.
    """
    assert key.credential is not None
    fields = {"service": key.service, "scope": key.scope, "client_id": CLIENT_ID}
    if key.credential.identity_token:
        fields |= {"grant_type": "refresh_token", "refresh_token": key.credential.identity_token}
    else:
        fields |= {
            "grant_type": "password",
            "username": key.credential.username,
            "password": key.credential.password,
        }
    body = urlencode({name: text for name, text in fields.items() if text}).encode()
    headers = (("Content-Type", "application/x-www-form-urlencoded"),)
    return UpstreamRequest("POST", key.realm, headers, body=body, follow_redirects=False, owner=key.credential)


def _copied(error: TokenRefused | UpstreamUnavailable) -> TokenRefused | UpstreamUnavailable:
    if isinstance(error, TokenRefused):
        return TokenRefused(str(error), error.status)
    return UpstreamUnavailable(str(error), error.failure, passing=error.passing, retry_at_s=error.retry_at_s)
