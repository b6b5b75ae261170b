"""Whose credentials a request carries to a registry or to its token server.

Contract: the client's own `Authorization` wins; else the operator's credential for that host and repository; else none.
The names of Docker Hub count as one host, because users configure any of them. Basic is RFC 7617, Bearer RFC 6750.

A credential goes to its own host only: what happens on redirects is in `regproxy.policy.redirects`.
"""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from regproxy.oci.names import normalise_host

DOCKER_HUB_ALIASES = frozenset(
    {"docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io", "registry.hub.docker.com"}
)
"""Names under which users know Docker Hub; a credential for one is a credential for all."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What the operator may log in with at one host; its text forms never show a secret."""

    host: str
    """Registry or token server, in lower case without a final dot."""

    port: int | None
    """The only port the credential is sent to; None is every port."""

    username: str

    password: str = field(repr=False)

    path: str = ""
    """Only for repositories at or below this name; empty is every repository."""

    identity_token: str = field(default="", repr=False)
    """A refresh token that a token server exchanges (`identitytoken` of Docker's config.json); empty without one."""

    registry_token: str = field(default="", repr=False)
    """A bearer token that the registry takes as it is (`registrytoken`); empty without one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", normalise_host(self.host))
        # RFC 7617 section 2: "a user-id containing a colon character is invalid".
        if ":" in self.username:
            raise ValueError(f"the user name for {self.host} has a colon, which HTTP Basic cannot carry")

    def is_for(self, host: str, port: int, repository: str | None = None) -> bool:
        """Whether the credential may be sent to this normalised host and port, for a repository.

        What names no repository, such as `/v2/`, may be asked with any credential of the host.
        """
        if self.port not in (None, port):
            return False
        if self.path and repository and not f"{repository}/".startswith(f"{self.path}/"):
            return False
        return self.host == host or {self.host, host} <= DOCKER_HUB_ALIASES


def basic_header(credential: Credential) -> str:
    """Return the value of an `Authorization` field with this credential, in UTF-8."""
    pair = f"{credential.username}:{credential.password}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def authorization_of(credential: Credential) -> str | None:
    """Return the `Authorization` to send to the credential's host; None for what only a token server understands."""
    if credential.registry_token:
        return f"Bearer {credential.registry_token}"
    return basic_header(credential) if credential.password else None


def find_credential(
    host: str, port: int, credentials: Iterable[Credential], repository: str | None = None
) -> Credential | None:
    """Return the operator's credential for a repository at a host.

    The longest path comes first, then an exact host before an alias, then an exact port before any port. Where no
    repository is named, a credential for all of them comes before one for some.
    """
    try:
        name = normalise_host(host)
    except ValueError:
        return None

    def fit(credential: Credential) -> tuple[int, bool, bool]:
        depth = len(credential.path)
        return depth if repository else -depth, credential.host == name, credential.port == port

    suitable = [credential for credential in credentials if credential.is_for(name, port, repository)]
    # max() keeps the first of equals, so that the order of the list decides between duplicates.
    return max(suitable, key=fit, default=None)


def repository_of_scope(target: str) -> str | None:
    """Return the repository that a token is asked for (`scope=repository:<name>:pull`), None when none is named.

    `target` is a path with its query. Grammar: distribution's "Token Scope Documentation"; of several, the first.
    """
    return next((name for name, _ in _scopes(target) if name is not None), None)


def is_pull(target: str) -> bool:
    """Whether a token is asked for to pull, and for nothing else; `target` as for `repository_of_scope`."""
    scopes = list(_scopes(target))
    return bool(scopes) and all(name is not None and actions == "pull" for name, actions in scopes)


def _scopes(target: str) -> Iterator[tuple[str | None, str]]:
    """Yield repository and actions of each scope; None for what is no repository."""
    for field_value in parse_qs(target.partition("?")[2]).get("scope", ()):
        for scope in field_value.split():
            kind, _, rest = scope.partition(":")
            name, colon, actions = rest.rpartition(":")
            # `repository(plugin)` is a repository, too.
            yield (name if kind.partition("(")[0] == "repository" and colon else None), actions
