"""What the proxy shows a registry of its own: nothing, a password, or a token; and what a refusal of it means.

An operator's password is shown at once where nothing else is known, as the predecessor does. A registry that answers
401 with a token challenge is remembered, and gets a token with the first request from then on. A password that is
refused rests, for Docker Hub locks accounts (contract A5), and the pulls go on anonymously. Which challenge may be
answered is `policy.realms`; asking and keeping tokens is `origin.tokens`.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from regproxy.oci.challenge import parse_challenges
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.resolver import AddressForbiddenError
from regproxy.origin.tokens import CREDENTIAL_REST_S, REFUSAL_REST_S, Bounded, Token, TokenKey, TokenRefused, Tokens
from regproxy.policy.credentials import Credential, authorization_of
from regproxy.policy.interception import HostPattern
from regproxy.policy.realms import (
    Access,
    Realm,
    RealmRefused,
    accept_realm,
    find_challenge,
    may_have_password,
    pull_scope,
)
from regproxy.policy.redirects import Url

logger = logging.getLogger(__name__)


class CredentialSource(Protocol):
    """Where the operator's credentials come from."""

    async def credential_for(self, host: str, port: int, repository: str | None) -> Credential | None:
        """Return the credential for a repository at a host; `repository` is None for what is about none."""
        ...

    def distrust(self, host: str, port: int) -> None:
        """Take note that the host has refused it: there may be a newer one."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """What one request showed its registry."""

    header: str | None = field(default=None, repr=False)
    """The value of `Authorization`; None for nothing."""
    credential: Credential | None = None
    """Whose password it is, or whose token."""
    key: TokenKey | None = None
    """Of a token."""
    is_new: bool = False
    """Whether the token was got for this very request: another one would be refused too."""


NOTHING = Shown()


class Logins:
    """What is known of the registries that want to see something."""

    def __init__(
        self,
        tokens: Tokens,
        credentials: CredentialSource,
        trusted: Iterable[HostPattern] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._credentials = credentials
        self._trusted = tuple(trusted)
        self._clock = clock
        self._realms: Bounded[str, Realm] = Bounded()
        self._resting: Bounded[Credential, float] = Bounded()
        self._useless: Bounded[TokenKey, float] = Bounded()
        self._proven: Bounded[Credential, None] = Bounded()
        self._proving: Bounded[Credential, asyncio.Lock] = Bounded()
        self._refused_realms: Bounded[tuple[str, str], None] = Bounded()
        self._resting_elsewhere: Bounded[str, float] = Bounded()
        self._key = b""
        self.on_rest: Callable[[str, float], None] = lambda _fingerprint, _until_s: None
        """Called with a credential that was refused: what stands for it, and until when it rests."""

    def realm_of(self, registry: Url) -> Realm | None:
        """Return the token server that a registry has named so far."""
        return self._realms.get(registry.origin)

    def is_resting(self, credential: Credential) -> bool:
        """Whether a credential was refused a while ago and must not be tried again yet."""
        now_s = self._clock()
        if self._resting_elsewhere and now_s < self._resting_elsewhere.get(self._fingerprint(credential), 0.0):
            return True
        return now_s < self._resting.get(credential, 0.0)

    def share_key(self, key: bytes) -> None:
        """Name credentials to the other processes of this proxy, by hashes with this key."""
        self._key = key

    def hear_rest(self, fingerprint: str, until_s: float) -> None:
        """Let a credential rest that another process was refused with; that one has said so."""
        self._resting_elsewhere[fingerprint] = until_s

    def _fingerprint(self, credential: Credential) -> str:
        parts = (credential.host, credential.username, credential.password, credential.identity_token)
        text = "\0".join((*parts, credential.registry_token, credential.path))
        return hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), "sha256").hex()

    async def credential_of(self, registry: Url, repository: str | None) -> Credential | None:
        """Return the operator's credential for a registry, if it does not rest."""
        return await self.usable(registry.host, registry.port, repository)

    async def has_login(self, registry: Url, repository: str | None) -> bool:
        """Whether the operator has a login for a repository, at its registry or the token server it has named."""
        if await self.usable(registry.host, registry.port, repository) is not None:
            return True
        realm = self._realms.get(registry.origin)
        return realm is not None and await self.usable(realm.url.host, realm.url.port, repository) is not None

    def learn(self, registry: Url, fields: Sequence[str]) -> None:
        """Remember the token server that a 401 to somebody else's login names; `fields` as for `after`."""
        bearer = find_challenge(parse_challenges(fields), "bearer")
        if bearer is not None:
            with contextlib.suppress(RealmRefused):
                self._realms[registry.origin] = accept_realm(registry, bearer)

    async def before(self, registry: Url, access: Access) -> Shown:
        """Return what to show with a request's first attempt."""
        realm = self._realms.get(registry.origin)
        if realm is None:
            credential = await self.usable(registry.host, registry.port, access.name)
            return _password(credential)
        if not access.takes_tokens:
            return NOTHING
        # Without a token the registry still says by a 401 that it wants one, or answers, if this is open to all.
        return await self._token(registry, realm, access, may_fail=True) or NOTHING

    async def after(self, registry: Url, access: Access, shown: Shown, fields: Sequence[str]) -> Shown | None:
        """Return what to show with the one other attempt after a 401; None when that is the answer.

        `fields` are its `WWW-Authenticate` fields. Raises `UpstreamUnavailable` when the token server does not answer.
        """
        challenges = parse_challenges(fields)
        bearer = find_challenge(challenges, "bearer")
        if bearer is None:
            self._realms.pop(registry.origin, None)
            if shown.key is None and shown.credential is not None:
                self.rest(shown.credential, registry.origin)
                return NOTHING
            credential = await self.usable(registry.host, registry.port, access.name)
            asks_password = find_challenge(challenges, "basic") is not None
            return _password(credential) if asks_password and credential is not None else None
        try:
            realm = accept_realm(registry, bearer)
        except RealmRefused as error:
            self._warn_once(registry, bearer.params.get("realm", ""), str(error))
            return None
        self._realms[registry.origin] = realm
        if not access.takes_tokens:
            return None
        if shown.key is not None and shown.header is not None:
            if self._is_useless(shown, realm):
                return None
            self._tokens.forget(shown.key, shown.header.removeprefix("Bearer "))
        return await self._token(registry, realm, access, may_fail=False)

    def refused(self, registry: Url, shown: Shown) -> None:
        """Remember that the second attempt was refused too."""
        if shown.key is not None:
            self._useless[shown.key] = self._clock() + REFUSAL_REST_S
        elif shown.credential is not None:
            self.rest(shown.credential, registry.origin)

    def _is_useless(self, shown: Shown, realm: Realm) -> bool:
        """Whether another token would be refused like this one: it is new, or its successor was refused lately."""
        assert shown.key is not None
        if (shown.key.realm, shown.key.service) != (realm.url, realm.service):
            return False
        if shown.is_new:
            self._useless[shown.key] = self._clock() + REFUSAL_REST_S
            return True
        return self._clock() < self._useless.get(shown.key, 0.0)

    async def _token(self, registry: Url, realm: Realm, access: Access, *, may_fail: bool) -> Shown | None:
        """Return a token with the operator's credential, else an anonymous one; None when there is neither.

        Raises `UpstreamUnavailable` unless it `may_fail`.
        """
        scope = pull_scope(realm, access.name)
        credential = await self._credential_at(registry, realm.url, access.name)
        if credential is not None and credential.registry_token:
            return _password(credential)
        owners = (None,) if credential is None else (credential, None)
        try:
            return await self._first_token(registry, realm, scope, owners)
        except UpstreamUnavailable as error:
            if _forbidden_address(error) is not None:
                self._warn_once(registry, realm.url.origin, str(error))
            elif not may_fail:
                raise
            return None

    async def _first_token(
        self, registry: Url, realm: Realm, scope: str, owners: Iterable[Credential | None]
    ) -> Shown | None:
        """Return a token for the first owner that gets one. Raises `UpstreamUnavailable`."""
        for owner in owners:
            key = TokenKey.of(registry, realm, scope, owner)
            was_known = self._tokens.known(key) is not None
            try:
                token = await self._tokens.get(key) if owner is None else await self._with_login(owner, key)
            except TokenRefused as error:
                if owner is None or error.status != 401:
                    logger.info("%s for %s", error, scope or registry.origin)
            else:
                return Shown(f"Bearer {token.value}", owner, key, not was_known)
        return None

    async def _with_login(self, owner: Credential, key: TokenKey) -> Token:
        """Return a token of the operator's login. Raises as `Tokens.get`.

        Until a token server has taken it once it is tried once at a time: ten pulls must not be ten wrong passwords.
        """
        if owner in self._proven:
            return await self._or_rest(owner, key)
        lock = self._proving.setdefault(owner, asyncio.Lock())
        async with lock:
            if self.is_resting(owner):
                raise TokenRefused(f"{key.realm.origin} has just refused the login user={owner.username}", 401)
            token = await self._or_rest(owner, key)
        self._proven[owner] = None
        return token

    async def try_at(self, realm: Realm, registry: Url, credential: Credential, user_agent: str) -> None:
        """Ask the token server for a token that opens nothing. Raises `RealmRefused` and as `Tokens.get`.

        Whether one is given shows whether the login is right; a wrong one rests.
        """
        if not may_have_password(registry, realm.url, self._trusted):
            raise RealmRefused(
                f"{registry.origin} sends to {realm.url.origin}: list that host in TRUSTED_HOSTS if it is right"
            )
        try:
            await self._tokens.try_login(TokenKey.of(registry, realm, "", credential), user_agent)
        except TokenRefused as error:
            if error.status == 401:
                self.rest(credential, realm.url.origin)
            raise

    async def _or_rest(self, owner: Credential, key: TokenKey) -> Token:
        try:
            return await self._tokens.get(key)
        except TokenRefused as error:
            if error.status == 401:
                self._proven.pop(owner, None)
                self.rest(owner, key.realm.origin)
            raise

    async def _credential_at(self, registry: Url, realm: Url, repository: str | None) -> Credential | None:
        """Return whose login the token server may see: the registry's, else the one it has itself."""
        if may_have_password(registry, realm, self._trusted):
            credential = await self.usable(registry.host, registry.port, repository)
            if credential is not None:
                return credential
        return await self.usable(realm.host, realm.port, repository)

    async def usable(self, host: str, port: int, repository: str | None) -> Credential | None:
        """Return the operator's credential for a repository at a host, if it does not rest."""
        credential = await self._credentials.credential_for(host, port, repository)
        if credential is None or not self.is_resting(credential):
            return credential
        self._credentials.distrust(host, port)  # whoever gave it may have its successor by now
        return None

    def rest(self, credential: Credential, by: str) -> None:
        """Let a credential rest that was refused with 401, and say so loudly."""
        if self.is_resting(credential):
            return
        self._resting[credential] = until_s = self._clock() + CREDENTIAL_REST_S
        if self._key:
            self.on_rest(self._fingerprint(credential), until_s)
        logger.error(
            "%s refuses the login of %s, user=%s (401): pulls go on anonymously, it is tried again in %d minutes; "
            "correct it where the credentials are set",
            by,
            credential.host,
            credential.username,
            CREDENTIAL_REST_S // 60,
        )

    def _warn_once(self, registry: Url, realm: str, reason: str) -> None:
        if (registry.origin, realm) not in self._refused_realms:
            self._refused_realms[registry.origin, realm] = None
            logger.warning("%s; clients have to get their tokens themselves", reason)


def _password(credential: Credential | None) -> Shown:
    header = None if credential is None else authorization_of(credential)
    return NOTHING if header is None else Shown(header, credential)


def _forbidden_address(error: BaseException) -> AddressForbiddenError | None:
    """Return the refusal of an address that led to an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressForbiddenError):
            return cause
        cause = cause.__cause__
    return None
