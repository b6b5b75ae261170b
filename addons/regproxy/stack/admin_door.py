"""The admin API at the proxy's own address: who may come in, which handler answers, and errors as JSON.

Never through CONNECT, in absolute form or by the mirror door: `door` says how a request came, and the proxy's own ports
are not reached through it (`interception`).
"""

import json
import logging

from mitmproxy import http
from mitmproxy.utils import asyncio_utils

from regproxy.engine.http_layer import Door, door
from regproxy.policy.admin_access import refusal
from regproxy.stack.admin.openapi import openapi
from regproxy.stack.admin.pinning import keep_renewing
from regproxy.stack.admin.queries import Json, RequestError
from regproxy.stack.admin.readiness import keep_looking
from regproxy.stack.admin.routes import Api
from regproxy.stack.answers import answer
from regproxy.stack.core import Core
from regproxy.stack.interception import has_body
from regproxy.stack.recent_requests import RecentRequests
from regproxy.store.errors import StoreError

logger = logging.getLogger(__name__)

PREFIX = "/_proxy/api/v1"


class AdminDoor:
    """Stands before the other pages of the proxy's own address."""

    name = "registry-admin-door"

    def __init__(self, core: Core, recent: RecentRequests) -> None:
        self._core = core
        self._api = Api(core, recent)
        self._document = openapi(self._api.routes, PREFIX)

    def running(self) -> None:
        """Keep the pins up to date, and look how an outage would be."""
        if self._core.ready:
            asyncio_utils.create_task(keep_renewing(self._core), name="renew pins", keep_ref=True)
            asyncio_utils.create_task(keep_looking(self._core), name="outage readiness", keep_ref=True)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer at once: nothing here needs a request's body."""
        request = flow.request
        if flow.response is not None or door(request) is not Door.OWN or not is_admin(request.path):
            return
        try:
            flow.response = _reply(200, await self._answer(flow))
        except RequestError as error:
            flow.response = _error(error)
        except StoreError as error:
            flow.response = _error(RequestError(503, str(error)))
        except Exception:
            logger.exception("%s %s", request.method, request.path.partition("?")[0])
            flow.response = _error(RequestError(500, "this is a mistake of the proxy: its log has the details"))

    async def _answer(self, flow: http.HTTPFlow) -> Json:
        request = flow.request
        self._admit(flow)
        path, _, query = request.path.partition("?")
        path = path.removeprefix(PREFIX)
        if path == "/openapi.json" and request.method == "GET":
            return self._document
        routes = {route.method: route for route in self._api.routes if route.path == path}
        if not routes:
            raise RequestError(404, f"there is no such path here: see {PREFIX}/openapi.json")
        route = routes.get(request.method)  # type: ignore[call-overload] # any text
        if route is None:
            raise RequestError(405, f"{request.method} is none of {', '.join(sorted(routes))}")
        if has_body(request):
            raise RequestError(400, "all that a request says is in its query: send no body")
        answered: Json = await route.handler(route.read(query))
        return answered

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


def _reply(status: int, body: Json, **fields: str) -> http.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", **fields}
    return answer(status, headers, json.dumps(body, separators=(",", ":")).encode() + b"\n")


def _error(error: RequestError) -> http.Response:
    fields = {"WWW-Authenticate": 'Bearer realm="registry-proxy admin"'} if error.status == 401 else {}
    return _reply(error.status, {"error": str(error)}, **fields)
