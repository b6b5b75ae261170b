"""Who a client is, as far as its requests show: the login it sends, or the login that its token was given to.

The proxy never knows a name to trust: it knows that the same password, or a token that was seen to be given for that
password, came again. A token that says whose it is (a JSON web token) is not believed, because nobody here can check
its signature. What identifies a login is a hash with a key that never leaves the cache's directory.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

_SCRYPT_COST = 2**13
_SCRYPT_BLOCK = 8
"""About 20 ms and 8 MiB for one guess (RFC 7914): passwords are short, and a thief of the cache may guess at home."""

_SCRYPT_MEMORY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who can be recognised, and nothing else about them."""

    key: str = ""
    """Hexadecimal; empty for a client without a login."""

    @property
    def is_nobody(self) -> bool:
        """Whether the client has no login of its own."""
        return not self.key


NOBODY = Identity()


@dataclass(frozen=True, slots=True)
class Login:
    """What proves who a client is: `user:password`, or a refresh token."""

    secret: bytes = field(repr=False)
    is_guessable: bool = True
    """False for what a machine made up."""


class IdentityKey:
    """The key of all hashes; `secret` has 32 bytes or more."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of_login(self, login: Login) -> Identity:
        """Return whose login this is. Takes about 20 ms for a password: not for the event loop."""
        if not login.is_guessable:
            return self.of_token(login.secret.decode("utf-8", "surrogateescape"))
        hashed = hashlib.scrypt(
            login.secret, salt=self._secret, n=_SCRYPT_COST, r=_SCRYPT_BLOCK, p=1, maxmem=_SCRYPT_MEMORY_BYTES, dklen=20
        )
        return Identity(hashed.hex())

    def of_token(self, token: str) -> Identity:
        """Return whose token this is, if nothing else is known of it: whoever has it."""
        secret = token.encode("utf-8", "surrogateescape")
        return Identity(hmac.digest(self._secret, b"token\0" + secret, "sha256")[:20].hex())


def login_of_header(authorization: str) -> Login | None:
    """Return the login of a Basic `Authorization` value (RFC 7617); None for any other."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return Login(base64.b64decode(rest.strip(), validate=True))
    except (binascii.Error, ValueError):
        return Login(rest.strip().encode("utf-8", "surrogateescape"))  # no less somebody's for being misspelt


def token_of_header(authorization: str) -> str | None:
    """Return the token of a Bearer `Authorization` value (RFC 6750 section 2.1); None for any other."""
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None


def login_of_form(body: bytes) -> Login | None:
    """Return the login of a token request's form ("OAuth2 Token Authentication"); None for a form without one."""
    fields = parse_qs(body.decode("utf-8", "surrogateescape"), keep_blank_values=True)
    match _first(fields, "grant_type"):
        case "password":
            pair = f"{_first(fields, 'username')}:{_first(fields, 'password')}"
            return Login(pair.encode("utf-8", "surrogateescape"))
        case "refresh_token":
            return Login(_first(fields, "refresh_token").encode("utf-8", "surrogateescape"), is_guessable=False)
        case _:
            return None


def _first(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[0]
