"""On whose account a registry is asked: registries count by login, and by address for who has none.

Nothing here holds a secret: what clients send is known by a hash with a key that lives as long as the process.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from regproxy.policy.credentials import Credential
from regproxy.policy.realms import is_anonymous_bearer


@dataclass(frozen=True, slots=True)
class Caller:
    """One account at a registry, as far as the proxy can tell."""

    name: str
    """For people: `user=alice`, `anonymous clients`, `a client's own login (1a2b3c4d)`."""
    key: str = ""
    """Parts two accounts of the same name; no secret."""


ANONYMOUS = Caller("anonymous clients")


class Callers:
    """Tells accounts apart."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    @staticmethod
    def of_operator(credential: Credential | None) -> Caller:
        """Return the account of an operator's login; it is the same one under a new password."""
        return ANONYMOUS if credential is None else Caller(f"user={credential.username}", credential.path or "/")

    def of_client(self, authorization: str | None) -> Caller:
        """Return the account behind a client's own `Authorization`.

        A token says whose it is, and is another one at each pull; who forges that gets no answer that counts.
        """
        if authorization is None or is_anonymous_bearer(authorization):
            return ANONYMOUS
        fingerprint = self._hash(_subject(authorization) or authorization)
        return Caller(f"a client's own login ({fingerprint[:8]})", fingerprint)

    def fingerprint(self, authorization: str | None) -> str:
        """Return what stands for exactly this `Authorization`; empty for a client without a login."""
        if authorization is None or is_anonymous_bearer(authorization):
            return ""
        return self._hash(authorization)

    def _hash(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _subject(authorization: str) -> str | None:
    """Return issuer and subject of a JSON web token, None for anything else."""
    scheme, _, token = authorization.strip().partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return f"{claims.get('iss')} {subject}" if isinstance(subject, str) and subject else None
