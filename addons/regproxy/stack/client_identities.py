"""Whose requests these are: logins are recognised again, and tokens by the login they were given to.

Clients log in at a token server and come back with a token, another one every few minutes. `client_tokens` sees both,
so a token is known to be somebody's or, if it was given to a client without a login, nobody's (contract A2).
Everything here is bounded and in memory; after a restart a token that nobody has seen given is whoever has it.
"""

import hashlib
import secrets
from asyncio import Lock, to_thread
from collections import OrderedDict
from collections.abc import Callable, Hashable

from regproxy.policy.identities import NOBODY, Identity, IdentityKey, Login, login_of_header, token_of_header
from regproxy.policy.precedence import Own
from regproxy.policy.realms import is_anonymous_bearer, is_opaque_bearer

KNOWN_LOGINS = 10_000
KNOWN_TOKENS = 50_000
"""About 300 bytes each. A client has one token for each repository and five minutes."""

OWN_TOKEN_PREFIX = "registry-proxy."  # noqa: S105 - what all of them begin with
"""Of tokens that the proxy gives itself while a token server does not answer. No registry would know them."""


class ClientIdentities:
    """What was learnt of clients. For the event loop."""

    def __init__(self, key: IdentityKey) -> None:
        self._key = key
        self._mask = secrets.token_bytes(32)
        self._hashing = Lock()
        self._logins: OrderedDict[bytes, Identity] = OrderedDict()
        self._tokens: OrderedDict[bytes, Identity] = OrderedDict()
        self.on_given: Callable[[bytes, Identity], None] = lambda _masked, _owner: None
        """Called with what stands for a token, and whose it is."""

    def recall(self, authorization: str | None) -> Identity | None:
        """Return who sends this `Authorization`; None when that takes time to find out (`of`)."""
        if authorization is None:
            return NOBODY
        token = token_of_header(authorization)
        if token is not None:
            return self._of_token(token, authorization)
        return _recalled(self._logins, self._masked(authorization))

    def has_seen_given(self, authorization: str) -> bool:
        """Whether this is a token that was seen to be given: what it opens is known to be its owner's."""
        token = token_of_header(authorization)
        return token is not None and self._masked(token) in self._tokens

    async def of(self, authorization: str | None) -> Identity:
        """Return who sends this `Authorization`."""
        known = self.recall(authorization)
        if known is not None:
            return known
        assert authorization is not None
        login = login_of_header(authorization) or Login(authorization.encode("utf-8", "surrogateescape"))
        identity = await self.of_login(login)
        _keep(self._logins, self._masked(authorization), identity, KNOWN_LOGINS)
        return identity

    def kind_of(self, authorization: str | None) -> Own:
        """Return what a client's `Authorization` is; a token of our own is nothing, for no registry knows it."""
        if authorization is None or is_own_token(authorization):
            return Own.NOTHING
        token = token_of_header(authorization)
        if token is None:
            return Own.LOGIN
        if self._of_token(token, authorization).is_nobody:
            return Own.ANONYMOUS
        is_known = self._masked(token) in self._tokens
        return Own.UNKNOWN if is_opaque_bearer(authorization) and not is_known else Own.LOGIN

    async def of_login(self, login: Login) -> Identity:
        """Return whose login this is. One after the other: each takes a core and 8 MiB for 20 ms."""
        async with self._hashing:
            return await to_thread(self._key.of_login, login)

    def given(self, token: str, owner: Identity) -> None:
        """Remember whose token this is: its server has just given it to that client."""
        masked = self._masked(token)
        self.hear_given(masked, owner)
        self.on_given(masked, owner)

    def hear_given(self, masked: bytes, owner: Identity) -> None:
        """Remember a token that another process of this proxy has seen given."""
        _keep(self._tokens, masked, owner, KNOWN_TOKENS)

    def share_mask(self, mask: bytes) -> None:
        """Mask secrets as the other processes of this proxy do; before anything is remembered."""
        self._mask = mask

    def give(self, owner: Identity) -> str:
        """Return a new token of our own for a client whose token server does not answer."""
        token = OWN_TOKEN_PREFIX + secrets.token_urlsafe(32)
        self.given(token, owner)
        return token

    def _of_token(self, token: str, authorization: str) -> Identity:
        owner = _recalled(self._tokens, self._masked(token))
        if owner is not None:
            return owner
        if is_own_token(authorization) or is_anonymous_bearer(authorization):
            return NOBODY
        return self._key.of_token(token)

    def _masked(self, secret: str) -> bytes:
        """Return what stands for a secret in memory."""
        return hashlib.blake2b(secret.encode("utf-8", "surrogateescape"), key=self._mask, digest_size=20).digest()


def is_own_token(authorization: str) -> bool:
    """Whether an `Authorization` value is a token that this proxy gave: never to be sent to anybody."""
    token = token_of_header(authorization)
    return token is not None and token.startswith(OWN_TOKEN_PREFIX)


def _recalled[Key: Hashable](known: OrderedDict[Key, Identity], key: Key) -> Identity | None:
    identity = known.get(key)
    if identity is not None:
        known.move_to_end(key)
    return identity


def _keep[Key: Hashable](known: OrderedDict[Key, Identity], key: Key, identity: Identity, most: int) -> None:
    known[key] = identity
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
