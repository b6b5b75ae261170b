"""A registry that wants tokens, its token server, and the client under test with a clock of its own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import parse_qsl

from aiohttp import web

from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url

type Speak = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]


@dataclass
class World:
    """Both servers remember what they were asked; `registry_speaks` and `realm_speaks` may answer in their place."""

    upstream: AuthorizedUpstream
    registry: Url
    challenge: str = ""
    clock: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(now_s=1000.0))
    taken: set[str] = field(default_factory=set)
    """Values of Authorization that the registry takes besides the tokens issued."""
    issued: list[str] = field(default_factory=list)
    lifetime_s: object = 100
    at_registry: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Authorization of each request."""
    at_realm: list[SimpleNamespace] = field(default_factory=list)
    """`method`, `authorization` and `form` of each request."""
    realm_speaks: Speak | None = None
    registry_speaks: Speak | None = None

    async def registry_answers(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take what was issued for the repository, refuse everything else."""
        shown = request.headers.get("Authorization")
        self.at_registry.append((request.path, shown))
        special = await self.registry_speaks(request) if self.registry_speaks is not None else None
        if special is not None:
            return special
        name = request.path.split("/")[2]
        fits = shown is not None and shown.startswith("Bearer ") and shown[7:] in self.issued
        if shown in self.taken or (fits and f"repository:{name}:pull" in str(shown)):
            return web.Response(text="content")
        return web.Response(status=401, text="no", headers={"WWW-Authenticate": self.challenge})

    async def realm_answers(self, request: web.BaseRequest) -> web.StreamResponse:
        """Issue a token that names what it is for."""
        fields = parse_qsl((await request.read()).decode()) if request.method == "POST" else request.query.items()
        form = dict(fields)
        asked = SimpleNamespace(method=request.method, authorization=request.headers.get("Authorization"), form=form)
        self.at_realm.append(asked)
        special = await self.realm_speaks(request) if self.realm_speaks is not None else None
        if special is not None:
            return special
        owner = form.get("account", form.get("username", ""))
        self.issued.append(f"token{len(self.issued)}/{form.get('scope', '')}/{owner}")
        return web.json_response({"token": self.issued[-1], "expires_in": self.lifetime_s})

    async def get(self, name: str = "a", *, takes_tokens: bool = True) -> int:
        """Read something of a repository through the client and return the status."""
        url = Url(self.registry.scheme, self.registry.host, self.registry.port, f"/v2/{name}/x")
        answer = await self.upstream.ask(UpstreamRequest("GET", url, (), access=Access(name, takes_tokens)), 1 << 20)
        return answer.status


def says(status: int, body: bytes = b"", **headers: str) -> Speak:
    """Return what always answers so; `Retry_After` is `Retry-After`."""

    async def speak(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            status=status, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return speak
