"""Which token challenge of a registry is answered, with whose password, and for what.

A challenge names the token server (`realm`), so a registry, or whoever speaks for it, chooses where the proxy sends a
password (distribution CVE-2026-33540, oras-go CVE-2026-48978). Rules: spec security 3.3, contract A4; the token
protocol is the distribution project's "Token Authentication Specification".

Whether the realm's addresses may be connected to is decided in `regproxy.policy.addresses`, after resolution. No
request is made here.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import publicsuffix2

from regproxy.oci.challenge import Challenge
from regproxy.policy.credentials import DOCKER_HUB_ALIASES
from regproxy.policy.interception import HostPattern
from regproxy.policy.redirects import Url


class RealmRefused(ValueError):  # noqa: N818 - a verdict, and the name says which
    """A challenge is not answered. The message has no query."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the proxy may show a registry of its own for one request that its client sent without credentials."""

    name: str | None
    """The one repository that is read; None for the ping, which is about none."""

    takes_tokens: bool = True
    """False: a token challenge is not answered, it is the answer that is wanted."""


@dataclass(frozen=True, slots=True)
class Realm:
    """A token server that may be asked on behalf of one registry."""

    url: Url
    service: str
    scope: str = ""
    """What the challenge named, several parted by blanks; a hint."""


def find_challenge(challenges: Sequence[Challenge], scheme: str) -> Challenge | None:
    """Return the first challenge of a scheme (in lower case)."""
    return next((challenge for challenge in challenges if challenge.scheme == scheme), None)


def accept_realm(registry: Url, challenge: Challenge) -> Realm:
    """Return the token server of a Bearer challenge. Raises `RealmRefused` when it may not be asked for anything.

    Plain http only for a registry that is spoken to in plain http itself: a token is as good as a password while it
    lasts. A user name in the realm is refused by `Url.parse`.
    """
    try:
        url = Url.parse(challenge.params.get("realm", ""))
    except ValueError as error:
        raise RealmRefused(f"{registry.origin} names no token server that may be asked: {error}") from error
    if url.scheme == "http" and registry.scheme == "https":
        raise RealmRefused(f"{registry.origin} names the token server {url!r}, which is not https")
    return Realm(url, challenge.params.get("service", ""), challenge.params.get("scope", ""))


def may_have_password(registry: Url, realm: Url, trusted: Iterable[HostPattern]) -> bool:
    """Whether a registry's password may be sent to the token server that it names.

    To the registry's own registrable domain, to another name of Docker Hub, or where the operator trusts a host
    (TRUSTED_HOSTS). Elsewhere the realm is asked anonymously, or with the credential that it has itself.
    """
    if registry.scheme == "https" and realm.scheme == "http":
        return False
    if registry.host == realm.host or {registry.host, realm.host} <= DOCKER_HUB_ALIASES:
        return True
    if any(pattern.matches(realm.host, realm.port) for pattern in trusted):
        return True
    domain = registrable_domain(registry.host)
    return domain is not None and domain == registrable_domain(realm.host)


def registrable_domain(host: str) -> str | None:
    """Return the part of a name that somebody registered: `gitlab.com` of `registry.gitlab.com`.

    By the Public Suffix List; None for an IP address, a single label, and a public suffix itself. Below a
    top-level domain that is not on the list (`corp`, `lan`) it is the last two labels.
    """
    labels = host.split(".")
    if len(labels) < 2 or ":" in host or labels[-1].isdecimal():
        return None
    suffix = publicsuffix2.get_tld(host, strict=True)
    if suffix is None:
        return ".".join(labels[-2:])
    suffix_labels = suffix.count(".") + 1
    return None if len(labels) <= suffix_labels else ".".join(labels[-suffix_labels - 1 :])


_OWN_SCOPE = r"(?P<kind>repository(?:\([a-z0-9-]+\))?):{name}:[a-z*,]*"


def pull_scope(realm: Realm, name: str | None) -> str:
    """Return the scope to ask for: to pull this one repository, whatever else the challenge wishes; empty for a ping.

    Only the resource's class is taken from the challenge: plugins are `repository(plugin)`.
    """
    if name is None:
        return ""
    own = re.compile(_OWN_SCOPE.format(name=re.escape(name)))
    named = next((match for element in realm.scope.split() if (match := own.fullmatch(element))), None)
    return f"{'repository' if named is None else named['kind']}:{name}:pull"


_ANONYMOUS_SUBJECTS = frozenset({"", "(anonymous)"})  # the second is Quay's


def is_anonymous_bearer(authorization: str) -> bool:
    """Whether an `Authorization` value is a token that its server gave to nobody in particular (contract A2).

    That is a JSON web token without a subject that opens no more than pulls. Its signature is not checked: who forges
    one asks for no more than who sends none. An opaque token is somebody's.
    """
    claims = _claims(authorization)
    if claims is None:
        return False
    subject = claims.get("sub", "")
    if not isinstance(subject, str) or subject not in _ANONYMOUS_SUBJECTS:
        return False
    access = claims.get("access") or []  # Go writes an empty list as null
    return isinstance(access, list) and all(_is_pull(entry) for entry in access)


def is_opaque_bearer(authorization: str) -> bool:
    """Whether an `Authorization` value is a token that says nothing of whose it is."""
    return authorization.strip().partition(" ")[0].lower() == "bearer" and _claims(authorization) is None


def _claims(authorization: str) -> dict[str, object] | None:
    """Return what a JSON web token says, unchecked (RFC 7519 section 3); None for anything else."""
    scheme, _, token = authorization.strip().partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _is_pull(entry: object) -> bool:
    actions = entry.get("actions", []) if isinstance(entry, dict) else None
    return isinstance(actions, list) and all(action == "pull" for action in actions)
