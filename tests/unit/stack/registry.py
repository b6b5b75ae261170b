"""A small registry on loopback that a test can move, stop and make lie, and that remembers what it was asked."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from regproxy.oci.digest import Digest

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"

type Override = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]


@dataclass
class Registry:
    """Manifests and blobs by path; `override` may answer in its place."""

    port: int = 0
    contents: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """Path -> body, media type."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    authorizations: list[str | None] = field(default_factory=list)
    override: Override | None = None

    @property
    def name(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def tag(self, reference: str, body: bytes, media_type: str = OCI, name: str = "library/alpine") -> Digest:
        """Put a manifest there, under its tag and its digest."""
        digest = Digest.of(body)
        for each in (reference, str(digest)):
            self.contents[f"/v2/{name}/manifests/{each}"] = (body, media_type)
        return digest

    def blob(self, body: bytes, name: str = "library/alpine") -> Digest:
        """Put a blob there."""
        digest = Digest.of(body)
        self.contents[f"/v2/{name}/blobs/{digest}"] = (body, "application/octet-stream")
        return digest

    def take_asked(self) -> list[tuple[str, str]]:
        """Return the requests since the last call."""
        asked, self.asked = self.asked, []
        return asked

    def methods(self) -> list[str]:
        """Return the methods since the last call."""
        return [method for method, _ in self.take_asked()]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.asked.append((request.method, request.path))
        self.authorizations.append(request.headers.get("Authorization"))
        special = await self.override(request) if self.override is not None else None
        if special is not None:
            return special
        found = self.contents.get(request.path)
        if found is None:
            return web.Response(status=404, text='{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        body, media_type = found
        fields = {
            "Content-Type": media_type,
            "Docker-Content-Digest": str(Digest.of(body)),
            "ratelimit-remaining": "99;w=21600",
            "Set-Cookie": "session=1",
        }
        return web.Response(body=body, headers=fields)


def status(code: int) -> Override:
    """Answer everything with an error, and a challenge whose token server may not be asked."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        fields = {
            "WWW-Authenticate": 'Bearer realm="https://169.254.169.254/token"',
            "Content-Type": "application/json",
        }
        return web.Response(status=code, body=b"" if request.method == "HEAD" else b'{"errors":[]}', headers=fields)

    return answer


async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
    """Close every connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def stay_silent(request: web.BaseRequest) -> web.StreamResponse:
    """Say nothing until the client goes away."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.005)
    return web.Response()
