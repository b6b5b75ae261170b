"""One line at start for each of the operator's credentials: who, where, from which source, and whether it works.

Checked in the background when the port is open. A registry that is down, slow or picky costs a line and nothing else.
"""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote, urlencode

from regproxy.oci.challenge import Challenge, parse_challenges
from regproxy.oci.names import HTTPS_PORT
from regproxy.origin.client import Upstream, UpstreamRequest, header_pairs
from regproxy.origin.credential_source import CredentialSource, Held
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.policy.credentials import DOCKER_HUB_ALIASES, Credential, authorization_of
from regproxy.policy.docker_config import Place
from regproxy.policy.interception import HostPattern, find_pattern
from regproxy.policy.redirects import Url

logger = logging.getLogger(__name__)

CHECK_LIMIT_S = 30.0
"""For one credential: a registry that needs longer is told as one that does not answer."""

BODY_LIMIT_BYTES = 256 * 1024
"""Tokens of Google's registries have many kB."""

HUB_API_HOST = "registry-1.docker.io"
_HUB_TOKEN_HOST = "auth.docker.io"  # noqa: S105 - a host

type Result = Literal["works", "refused", "unreachable", "not checked"]


async def report_credentials(source: CredentialSource, upstream: Upstream, listed: Iterable[HostPattern]) -> None:
    """Log one line for each credential; `listed` are the hosts that may be asked besides a credential's own."""
    patterns = tuple(listed)
    async for held in source.held():
        if held.credential is None:
            logger.warning("credential for %s from %s: there is none", held.place, held.source)
            continue
        result, reason = await _limited(held, held.credential, upstream, patterns)
        logger.log(
            logging.INFO if result in ("works", "not checked") else logging.WARNING,
            "credential of %s for %s from %s: %s%s",
            ascii(held.credential.username) if held.credential.username else "a token",
            held.place,
            held.source,
            result,
            reason and f" ({reason})",
        )


async def _limited(
    held: Held, credential: Credential, upstream: Upstream, listed: tuple[HostPattern, ...]
) -> tuple[Result, str]:
    try:
        async with asyncio.timeout(CHECK_LIMIT_S):
            return await try_credential(held.place, credential, upstream, listed)
    except TimeoutError:
        return "unreachable", f"no answer in {CHECK_LIMIT_S:g} s"
    except (UpstreamUnavailable, AnswerTooLarge) as error:
        return "unreachable", str(error)


async def try_credential(
    place: Place, credential: Credential, upstream: Upstream, listed: tuple[HostPattern, ...]
) -> tuple[Result, str]:
    """Return whether a registry takes a credential, and why not. Raises UpstreamUnavailable, AnswerTooLarge."""
    host = HUB_API_HOST if place.host in DOCKER_HUB_ALIASES else place.host
    port = place.port or HTTPS_PORT
    pattern = find_pattern(host, port, listed)
    url = Url("http" if pattern is not None and pattern.plain_http else "https", host, port, "/v2/")
    anonymous = await _get(upstream, url, None)
    if anonymous.status in (200, 404):
        # Open to all, or no registry but a token server: what is wrong may still be refused, what is right not told.
        with_login = await _get(upstream, url, authorization_of(credential))
        if with_login.status in (401, 403):
            return _verdict(with_login, url.origin)
        return "not checked", f"{url.origin}/v2/ answers {anonymous.status} without a login"
    challenge = _answerable(parse_challenges(_fields(anonymous, "www-authenticate")))
    if challenge is None:
        return "unreachable", f"{url.origin}/v2/ answers {anonymous.status} without a challenge"
    if challenge.scheme == "bearer" and not credential.registry_token:
        return await _ask_token_server(challenge, url, credential, upstream, listed)
    return _verdict(await _get(upstream, url, authorization_of(credential)), url.origin)


async def _ask_token_server(
    challenge: Challenge, registry: Url, credential: Credential, upstream: Upstream, listed: tuple[HostPattern, ...]
) -> tuple[Result, str]:
    """Ask for a token that opens nothing: whether one is given shows whether the login is right."""
    if credential.identity_token:
        return "not checked", "an identity token"
    try:
        realm = Url.parse(challenge.params.get("realm", ""))
    except ValueError:
        return "unreachable", f"{registry.origin} names no token server"
    if not _may_ask(realm, registry, listed):
        return (
            "not checked",
            f"{registry.origin} sends to {realm.origin}: list that host in TRUSTED_HOSTS if it is right",
        )
    separator = "&" if "?" in realm.target else "?"
    query = urlencode({"service": challenge.params.get("service", "")}, quote_via=quote)
    target = Url(realm.scheme, realm.host, realm.port, f"{realm.target}{separator}{query}")
    answer = await _get(upstream, target, authorization_of(credential))
    if answer.status == 200 and not _has_token(answer.body):
        return "unreachable", f"{realm.origin} gives no token"
    return _verdict(answer, realm.origin)


def _may_ask(realm: Url, registry: Url, listed: tuple[HostPattern, ...]) -> bool:
    """Whether a password may go to the token server that a registry names: only a host that is known to belong to it.

    That is the registry's own host, a parent of it (gitlab.com for registry.gitlab.com), Docker Hub's, a listed one.
    """
    if realm.scheme not in (registry.scheme, "https"):
        return False
    if realm.host == registry.host or (registry.host, realm.host) == (HUB_API_HOST, _HUB_TOKEN_HOST):
        return True
    is_parent = "." in realm.host and registry.host.endswith(f".{realm.host}")
    return is_parent or find_pattern(realm.host, realm.port, listed) is not None


def _fields(answer: Answer, name: str) -> list[str]:
    return [value for field, value in answer.headers.items() if field.lower() == name]


def _answerable(challenges: list[Challenge]) -> Challenge | None:
    return next((challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")), None)


def _has_token(body: bytes) -> bool:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and bool(content.get("token") or content.get("access_token"))


def _verdict(answer: Answer, asked: str) -> tuple[Result, str]:
    match answer.status:
        case 200:
            return "works", ""
        case 401 | 403:
            return "refused", f"{asked} answers {answer.status}"
        case status:
            return "unreachable", f"{asked} answers {status}"


async def _get(upstream: Upstream, url: Url, authorization: str | None) -> Answer:
    headers = header_pairs({"Authorization": authorization, "User-Agent": "registry-proxy"})
    return await upstream.ask(UpstreamRequest("GET", url, headers), BODY_LIMIT_BYTES)
