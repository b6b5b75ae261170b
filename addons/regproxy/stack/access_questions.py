"""How a registry is asked whether a client may read: a HEAD of the very content, with the client's authorization.

What the answers mean is decided in `access`.
"""

import dataclasses
from dataclasses import dataclass

from regproxy.oci.challenge import parse_challenges
from regproxy.oci.digest import Digest
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.errors import Answer
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.access import Repository
from regproxy.policy.identities import Identity
from regproxy.policy.realms import find_challenge
from regproxy.stack.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads where."""

    repository: Repository
    client: Identity

    @classmethod
    def of(cls, exchange: Exchange, name: str) -> "Reader":
        """Return the client of an exchange at a repository."""
        return cls(Repository(exchange.registry, name), exchange.client)


@dataclass(frozen=True, slots=True)
class Wish:
    """A stored content, and how its registry is asked about it."""

    reader: Reader
    digest: Digest
    size_bytes: int
    request: UpstreamRequest
    """A HEAD of the content with the client's authorization, or else the proxy's."""


class AccessQuestions:
    """Asks. Everything raises `UpstreamUnavailable`."""

    def __init__(self, upstream: AuthorizedUpstream) -> None:
        self._upstream = upstream

    async def about_content(self, wish: Wish) -> Answer | None:
        """Return what the registry says of a content; None for a success that is none.

        Some storage takes no HEAD at a URL that is signed for GET: it is asked for a single byte then. What has not the
        content's very size is a page of some other kind (a login page, say).
        """
        answer, size_bytes = await self._head(wish.request)
        if answer.status not in (200, 401, 404) and answer.origin != wish.request.url.origin:
            one_byte = dataclasses.replace(
                wish.request, method="GET", headers=(*wish.request.headers, ("Range", "bytes=0-0"))
            )
            answer, size_bytes = await self._head(one_byte)
        is_by_registry = answer.origin == wish.request.url.origin
        if not is_by_registry and answer.status in (401, 403):
            return dataclasses.replace(answer, status=502)  # storage's word, not the registry's
        is_success = answer.status in (200, 206)
        if is_success and "html" in answer.headers.get("Content-Type", "").lower():
            return None
        if is_success and size_bytes != wish.size_bytes and (size_bytes is not None or not is_by_registry):
            return None
        return answer

    async def about_repository(self, wish: Wish) -> Answer | None:
        """Return the registry's answer for the list of a repository's tags; None for what is neither that nor a no."""
        tags = dataclasses.replace(wish.request.url, target=f"/v2/{wish.reader.repository.name}/tags/list?n=1")
        answer, _ = await self._head(dataclasses.replace(wish.request, method="GET", url=tags))
        is_list = answer.status == 200 and "json" in answer.headers.get("Content-Type", "").lower()
        is_no = answer.status in (401, 403, 404)
        return answer if answer.origin == tags.origin and (is_list or is_no) else None

    async def _head(self, request: UpstreamRequest) -> tuple[Answer, int | None]:
        """Return an answer without its body, and the size of the whole that it names."""
        async with self._upstream.send(request) as response:
            origin = str(response.url.origin())
            answer = Answer(response.status, response.headers.copy(), b"", origin, response.opened_by)
        return answer, _whole_size(answer)


def _whole_size(answer: Answer) -> int | None:
    """Return the size of the whole content: of `Content-Range` for a part (RFC 9110 section 14.4)."""
    text = answer.headers.get("Content-Length", "")
    if answer.status == 206:
        text = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if text.isdecimal() else None


def challenge_for(challenge: str, name: str | None) -> str:
    """Return a registry's challenge for a repository, None for `/v2/`: the one that is remembered named another one."""
    bearer = find_challenge(parse_challenges([challenge]), "bearer")
    if bearer is None:
        return challenge
    params = {key: value for key, value in bearer.params.items() if key not in {"scope", "error"}}
    if name is not None:
        params["scope"] = f"repository:{name}:pull"
    return "Bearer " + ",".join(f"{key}={_quoted(value)}" for key, value in params.items())


def _quoted(value: str) -> str:
    """Return a quoted-string (RFC 9110 section 5.6.4)."""
    escaped = value.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'
