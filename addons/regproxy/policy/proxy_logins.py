"""Who may use the proxy: Basic logins of clients (RFC 9110 section 11.7, RFC 7617).

A login is `user:password`, or a line of Apache's htpasswd with a bcrypt or SHA-1 hash. Checking a hash takes time
and is the caller's; here logins are read.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Self

_HASH = re.compile(r"\$2[aby]\$|\{SHA\}")
_OTHER_HASH = re.compile(r"\$[^$]+\$|\{[A-Z0-9]+\}")


@dataclass(frozen=True, slots=True)
class ProxyLogin:
    """One client's login; its text forms do not show the secret."""

    username: str
    secret: str = field(repr=False)
    """The password, or a hash of it."""

    @property
    def is_hashed(self) -> bool:
        """Whether the secret is a hash in a form that can be checked."""
        return _HASH.match(self.secret) is not None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `user:password` or a line of htpasswd. Raises ValueError, which repeats nothing of the text."""
        username, colon, secret = text.partition(":")
        if not colon or not username or not secret:
            raise ValueError("it is not of the form user:password")
        login = cls(username, secret)
        if not login.is_hashed and _OTHER_HASH.match(secret):
            raise ValueError("its hash is of a kind that is not supported: use `htpasswd -B`")
        return login


def read_basic(header: str | None) -> tuple[str, str] | None:
    """Return user name and password of a `Proxy-Authorization` field, None when it has no Basic login."""
    scheme, _, token = (header or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        username, colon, password = base64.b64decode(token.strip(), validate=True).decode().partition(":")
    except ValueError:  # neither base64 nor UTF-8
        return None
    return (username, password) if colon else None
