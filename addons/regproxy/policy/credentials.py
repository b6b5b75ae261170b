"""Whose credentials a request carries to a registry or to its token server.

Contract: the client's own `Authorization` wins; else Basic of the operator's credential for that host; else none. The
names of Docker Hub count as one host, because users configure any of them. Basic is RFC 7617.

A credential goes to its own host only: what happens on redirects is in `regproxy.policy.redirects`.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field

from regproxy.oci.names import normalise_host

DOCKER_HUB_ALIASES = frozenset(
    {"docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io", "registry.hub.docker.com"}
)
"""Names under which users know Docker Hub; a credential for one is a credential for all."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The operator's user name and password for one host; its text forms never show the password."""

    host: str
    """Registry or token server, in lower case without a final dot."""

    port: int | None
    """The only port the credential is sent to; None is every port."""

    username: str

    password: str = field(repr=False)

    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token in the place of a password; empty for none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", normalise_host(self.host))
        # RFC 7617 section 2: "a user-id containing a colon character is invalid".
        if ":" in self.username:
            raise ValueError(f"the user name for {self.host} has a colon, which HTTP Basic cannot carry")

    def is_for(self, host: str, port: int) -> bool:
        """Whether the credential may be sent to this normalised host and port."""
        if self.port not in (None, port):
            return False
        return self.host == host or {self.host, host} <= DOCKER_HUB_ALIASES


def basic_header(credential: Credential) -> str:
    """Return the value of an `Authorization` field with this credential, in UTF-8."""
    pair = f"{credential.username}:{credential.password}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def choose_authorization(
    client_authorization: str | None, host: str, port: int, credentials: Iterable[Credential]
) -> str | None:
    """Return the `Authorization` value to send to `host`, or None for an anonymous request.

    `client_authorization` is what the client sent; blank counts as absent and anything else is kept verbatim.
    """
    if client_authorization is not None and client_authorization.strip():
        return client_authorization
    credential = find_credential(host, port, credentials)
    return None if credential is None else basic_header(credential)


def find_credential(host: str, port: int, credentials: Iterable[Credential]) -> Credential | None:
    """Return the operator's credential for a host: an exact host before an alias, an exact port before any port."""
    try:
        name = normalise_host(host)
    except ValueError:
        return None
    suitable = [credential for credential in credentials if credential.is_for(name, port)]
    # max() keeps the first of equals, so that the order of the list decides between duplicates.
    return max(suitable, key=lambda credential: (credential.host == name, credential.port == port), default=None)
