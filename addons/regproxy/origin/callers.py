"""On whose account a registry is asked: registries count by login, and by address for who has none.

Nothing here holds a secret: what clients send is known by a hash with a key that lives as long as the process.
"""

import hmac
import secrets
from dataclasses import dataclass

from regproxy.policy.credentials import Credential
from regproxy.policy.realms import is_anonymous_bearer

OPERATOR_PREFIX = "user="
"""How the name of an operator's login begins."""


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

    def share_key(self, key: bytes) -> None:
        """Tell accounts apart as the other processes of this proxy do."""
        self._key = key

    @staticmethod
    def of_operator(credential: Credential | None) -> Caller:
        """Return the account of an operator's login; it is the same one under a new password."""
        return (
            ANONYMOUS
            if credential is None
            else Caller(f"{OPERATOR_PREFIX}{credential.username}", credential.path or "/")
        )

    def of_client(self, authorization: str | None) -> Caller:
        """Return the account behind a client's own `Authorization`: whoever shows exactly this.

        What a token says of its owner is not believed, for nobody here can check its signature.
        """
        fingerprint = self.fingerprint(authorization)
        return Caller(f"a client's own login ({fingerprint[:8]})", fingerprint) if fingerprint else ANONYMOUS

    def fingerprint(self, authorization: str | None) -> str:
        """Return what stands for exactly this `Authorization`; empty for a client without a login."""
        if authorization is None or is_anonymous_bearer(authorization):
            return ""
        return hmac.digest(self._key, authorization.encode("utf-8", "surrogateescape"), "sha256").hex()
