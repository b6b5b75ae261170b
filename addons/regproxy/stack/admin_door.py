"""The admin API at the proxy's own address: who may come in, which handler answers, and errors as JSON.

Never through CONNECT, in absolute form or by the mirror door: `door` says how a request came, and the proxy's own ports
are not reached through it (`interception`).
"""

import json
import logging
import os
from collections.abc import Awaitable

from mitmproxy import http
from mitmproxy.utils import asyncio_utils

from regproxy.engine.bodies import FileBody, attach
from regproxy.engine.http_layer import Door, door
from regproxy.policy.admin_access import refusal
from regproxy.stack.admin.openapi import openapi
from regproxy.stack.admin.passing_on import PassingOn
from regproxy.stack.admin.pinning import keep_renewing
from regproxy.stack.admin.queries import LARGEST_BODY_BYTES, Json, RequestError, Route
from regproxy.stack.admin.readiness import keep_looking
from regproxy.stack.admin.routes import Api
from regproxy.stack.answers import answer
from regproxy.stack.core import Core
from regproxy.stack.interception import has_body
from regproxy.stack.recent_requests import RecentRequests
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.stored_content import StoredContent

logger = logging.getLogger(__name__)

PREFIX = "/_proxy/api/v1"


class AdminDoor:
    """Stands before the other pages of the proxy's own address."""

    name = "registry-admin-door"

    def __init__(self, core: Core, recent: RecentRequests) -> None:
        self._core = core
        self._api = Api(core, recent)
        self._passing_on = PassingOn(core.desk, self._api.routes)
        self._document = openapi(self._api.routes, PREFIX)

    @property
    def routes(self) -> tuple[Route, ...]:
        """All that can be asked."""
        return self._api.routes

    def running(self) -> None:
        """Keep the pins up to date, and look how an outage would be."""
        if self._core.ready:
            asyncio_utils.create_task(keep_renewing(self._core), name="renew pins", keep_ref=True)
            asyncio_utils.create_task(keep_looking(self._core), name="outage readiness", keep_ref=True)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer at once, unless content follows that may come."""
        if flow.response is None and _is_asked(flow.request):
            await self._respond(flow, self._answer_head(flow))

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer an upload."""
        if flow.response is None and _is_asked(flow.request):
            await self._respond(flow, self._answer(flow, flow.request.raw_content or b""))

    async def _respond(self, flow: http.HTTPFlow, answering: Awaitable[Json | StoredContent | None]) -> None:
        request = flow.request
        try:
            match await answering:
                case None:
                    pass
                case StoredContent() as content:
                    _send(flow, content)
                case answered:
                    flow.response = _reply(200, answered)
        except RequestError as error:
            flow.response = _error(error)
        except StoreFull as error:
            flow.response = _error(RequestError(507, str(error)))
        except StoreError as error:
            flow.response = _error(RequestError(503, str(error)))
        except Exception:
            logger.exception("%s %s", request.method, request.path.partition("?")[0])
            flow.response = _error(RequestError(500, "this is a mistake of the proxy: its log has the details"))

    async def _answer_head(self, flow: http.HTTPFlow) -> Json | StoredContent | None:
        """Answer what has no body; None for an upload that may come."""
        request = flow.request
        self._admit(flow)
        if request.method == "GET" and request.path == f"{PREFIX}/openapi.json":
            return self._document
        if not has_body(request):
            return await self._answer(flow, b"")
        if not self._route(request).takes_content:
            raise RequestError(400, "all that a request says is in its query: send no body")
        if "transfer-encoding" in request.headers:
            raise RequestError(411, "an upload has a Content-Length")
        if int(request.headers["content-length"]) > LARGEST_BODY_BYTES:
            raise RequestError(413, f"send at most {LARGEST_BODY_BYTES} bytes at a time")
        return None

    async def _answer(self, flow: http.HTTPFlow, body: bytes) -> Json | StoredContent:
        route = self._route(flow.request)
        return await self._passing_on.answer(route, flow.request.path.partition("?")[2], body)

    def _route(self, request: http.Request) -> Route:
        path = request.path.partition("?")[0].removeprefix(PREFIX)
        routes = {route.method: route for route in self._api.routes if route.path == path}
        if not routes:
            raise RequestError(404, f"there is no such path here: see {PREFIX}/openapi.json")
        route: Route | None = routes.get(request.method)  # type: ignore[call-overload] # any text
        if route is None:
            raise RequestError(405, f"{request.method} is none of {', '.join(sorted(routes))}")
        return route

    def _admit(self, flow: http.HTTPFlow) -> None:
        """Raise RequestError for who may not come in."""
        if not self._core.ready:
            raise RequestError(503, "the proxy is starting")
        settings = self._core.settings
        headers = {field.lower(): value for field, value in flow.request.headers.items()}
        client_ip = flow.client_conn.peername[0] if flow.client_conn.peername else ""
        refused = refusal(headers, client_ip, settings.admin_token, settings.admin_hosts)
        if refused is not None:
            raise RequestError(refused.status, refused.reason)


def is_admin(target: str) -> bool:
    """Whether a request target is the admin API's."""
    return target.startswith("/_proxy/api/")


def _is_asked(request: http.Request) -> bool:
    return door(request) is Door.OWN and is_admin(request.path)


def _send(flow: http.HTTPFlow, content: StoredContent) -> None:
    fields = {"Content-Type": "application/octet-stream", "Cache-Control": "no-store"}
    flow.response = answer(200, fields, length_bytes=content.size_bytes)
    with content:
        if content.size_bytes:
            attach(flow, FileBody(os.dup(content.fileno()), 0, content.size_bytes))


def _reply(status: int, body: Json, **fields: str) -> http.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", **fields}
    return answer(status, headers, json.dumps(body, separators=(",", ":")).encode() + b"\n")


def _error(error: RequestError) -> http.Response:
    fields = {"WWW-Authenticate": 'Bearer realm="registry-proxy admin"'} if error.status == 401 else {}
    return _reply(error.status, {"error": str(error)}, **fields)
