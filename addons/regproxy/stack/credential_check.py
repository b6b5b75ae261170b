"""One line at start for each of the operator's credentials: who, where, from which source, and whether it works.

Checked in the background when the port is open. A registry that is down, slow or picky costs a line and nothing else.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Literal

from regproxy.oci.challenge import Challenge, parse_challenges
from regproxy.oci.names import HTTPS_PORT
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.credential_source import CredentialSource, Held
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest, header_pairs
from regproxy.origin.tokens import TokenRefused
from regproxy.policy.credentials import DOCKER_HUB_ALIASES, Credential, authorization_of
from regproxy.policy.docker_config import Place
from regproxy.policy.interception import HostPattern, find_pattern
from regproxy.policy.realms import RealmRefused, accept_realm
from regproxy.policy.redirects import Url

logger = logging.getLogger(__name__)

CHECK_LIMIT_S = 30.0
"""For one credential: a registry that needs longer is told as one that does not answer."""

BODY_LIMIT_BYTES = 64 * 1024
USER_AGENT = "registry-proxy"

HUB_API_HOST = "registry-1.docker.io"

type Result = Literal["works", "refused", "unreachable", "not checked"]


async def report_credentials(
    source: CredentialSource, upstream: AuthorizedUpstream, listed: Iterable[HostPattern]
) -> None:
    """Log one line for each credential; `listed` says which hosts are spoken to in plain http."""
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
    held: Held, credential: Credential, upstream: AuthorizedUpstream, listed: tuple[HostPattern, ...]
) -> tuple[Result, str]:
    try:
        async with asyncio.timeout(CHECK_LIMIT_S):
            return await try_credential(held.place, credential, upstream, listed)
    except TimeoutError:
        return "unreachable", f"no answer in {CHECK_LIMIT_S:g} s"
    except (UpstreamUnavailable, AnswerTooLarge) as error:
        return "unreachable", str(error)


async def try_credential(
    place: Place, credential: Credential, upstream: AuthorizedUpstream, listed: tuple[HostPattern, ...]
) -> tuple[Result, str]:
    """Return whether a registry takes a credential, and why not. Raises UpstreamUnavailable, AnswerTooLarge."""
    host = HUB_API_HOST if place.host in DOCKER_HUB_ALIASES else place.host
    port = place.port or HTTPS_PORT
    pattern = find_pattern(host, port, listed)
    url = Url("http" if pattern is not None and pattern.plain_http else "https", host, port, "/v2/")
    anonymous = await _get(upstream, url, None)
    if anonymous.status in (200, 404):
        # Open to all, or no registry but a token server: what is wrong may still be refused, what is right not told.
        # It does not rest: a token server may want passwords elsewhere only.
        with_login = await _get(upstream, url, authorization_of(credential))
        if with_login.status in (401, 403):
            return _verdict(with_login, url.origin)
        return "not checked", f"{url.origin}/v2/ answers {anonymous.status} without a login"
    challenge = _answerable(parse_challenges(_fields(anonymous, "www-authenticate")))
    if challenge is None:
        return "unreachable", f"{url.origin}/v2/ answers {anonymous.status} without a challenge"
    if challenge.scheme == "bearer" and not credential.registry_token:
        return await _ask_token_server(challenge, url, credential, upstream)
    shown = await _get(upstream, url, authorization_of(credential))
    if shown.status == 401 and authorization_of(credential) is not None:
        upstream.logins.rest(credential, url.origin)
    return _verdict(shown, url.origin)


async def _ask_token_server(
    challenge: Challenge, registry: Url, credential: Credential, upstream: AuthorizedUpstream
) -> tuple[Result, str]:
    try:
        realm = accept_realm(registry, challenge)
        await upstream.logins.try_at(realm, registry, credential, USER_AGENT)
    except RealmRefused as error:
        return "not checked", str(error)
    except TokenRefused as error:
        return "refused", f"{realm.url.origin} answers {error.status}"
    return "works", ""


def _fields(answer: Answer, name: str) -> list[str]:
    return [value for field, value in answer.headers.items() if field.lower() == name]


def _answerable(challenges: list[Challenge]) -> Challenge | None:
    return next((challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")), None)


def _verdict(answer: Answer, asked: str) -> tuple[Result, str]:
    match answer.status:
        case 200:
            return "works", ""
        case 401 | 403:
            return "refused", f"{asked} answers {answer.status}"
        case status:
            return "unreachable", f"{asked} answers {status}"


async def _get(upstream: AuthorizedUpstream, url: Url, authorization: str | None) -> Answer:
    headers = header_pairs({"Authorization": authorization, "User-Agent": USER_AGENT})
    return await upstream.ask(UpstreamRequest("GET", url, headers), BODY_LIMIT_BYTES)
