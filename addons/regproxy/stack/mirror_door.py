"""The mirror door: the registry API on the proxy's own port, for clients that know the proxy as their mirror.

A request becomes an `Exchange` with the registry that it means (`policy.mirror`), and from there on everything is as
behind the proxy door: the operator's credentials, the caches, the log. Four things are not:

- `/v2/` is answered here, with 200: clients need no login, and the first question names no registry.
- What the client sends as Authorization is for this proxy: it is checked if `PROXY_AUTH` is set, and goes no further.
- No registry's challenge is passed on: a client would answer it with what it has for this address. 401 becomes 403.
- Nothing is written.

Every refusal has a status on which clients go on to the registry itself: containerd, Docker, podman and CRI-O do so at
each of 400 and above.
"""

import re
from functools import lru_cache

from mitmproxy import http

from regproxy.engine.http_layer import Door, door, enter_by
from regproxy.oci.endpoint import Blob, EndpointError, Manifest, Referrers, Tags, parse_endpoint
from regproxy.oci.errors import ErrorCode
from regproxy.policy.mirror import (
    Mirrored,
    MirrorTarget,
    find_mirrored,
    is_api,
    is_api_root,
    read_mirror_target,
    through_the_door,
)
from regproxy.policy.tiers import request_class
from regproxy.stack.answers import answer, oci_error
from regproxy.stack.client_login import ClientLogin
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, begin, exchange_of
from regproxy.stack.interception import has_body

API_ROOT_FIELDS = {"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"}
API_ROOT_BODY = b"{}"

LOGIN_CHALLENGE = 'Basic realm="registry-proxy"'
_LOGIN_REASON = "log in at this proxy: set a user name and a password for it where the client has the mirror's address"

# A registry names its next page, or another place for a blob, by path or by URL (RFC 8288, RFC 9110 section 10.2.2).
_OWN_LINK = re.compile(r"^(<?)(/v2/)")


class MirrorDoor:
    """Stands before the proxy's own pages and behind `Interception`, which it does the work of for its door."""

    name = "registry-mirror-door"

    def __init__(self, core: Core, login: ClientLogin | None = None) -> None:
        self._core = core
        self._login = login or ClientLogin(core)
        # Every request asks, and the settings stay.
        self._find = lru_cache(maxsize=1024)(self._find_mirrored)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Find out what is asked of which registry; answer what is asked of the door itself, and what it refuses."""
        request = flow.request
        if flow.response is not None or door(request) is not Door.OWN or not is_api(request.path):
            return
        if not is_api_root(request.path):
            enter_by(request, Door.MIRROR)
        flow.response = await self._refusal(request)
        if flow.response is not None:
            return
        if is_api_root(request.path):
            flow.response = answer(200, API_ROOT_FIELDS, b"" if request.method == "HEAD" else API_ROOT_BODY)
            return
        try:
            exchange, target = self.exchange(request.method, request.path)
        except EndpointError as error:
            flow.response = oci_error(404 if error.code is ErrorCode.NAME_UNKNOWN else 400, error.code, str(error))
            return
        request.scheme, request.host, request.port = exchange.scheme, exchange.registry.host, exchange.registry.port
        request.path = target
        for field in ("authorization", "proxy-authorization", "cookie"):
            request.headers.pop(field, None)
        begin(flow, exchange)

    def exchange(self, method: str, target: str) -> tuple[Exchange, str]:
        """Return what is asked of which registry, and the request target there. Raises EndpointError."""
        settings = self._core.settings
        asked: MirrorTarget = read_mirror_target(target, settings.default_registry)
        mirrored = self._find(asked.namespace)
        if mirrored is None:
            raise EndpointError(
                ErrorCode.NAME_UNKNOWN, "this registry is not mirrored here: see REGISTRIES and MIRROR_REGISTRIES"
            )
        endpoint = parse_endpoint(method, asked.target)
        if not isinstance(endpoint, Blob | Manifest | Tags | Referrers):
            raise EndpointError(ErrorCode.NAME_UNKNOWN, "a mirror has manifests, blobs, tags and referrers only")
        scheme = "http" if mirrored.plain_http else "https"
        wanted = request_class(endpoint, settings.tiers, caching_enabled=settings.enable_manifest_cache)
        return Exchange(mirrored.registry, scheme, endpoint, wanted, namespace=asked.namespace), asked.target

    async def _refusal(self, request: http.Request) -> http.Response | None:
        if not self._core.ready:
            return oci_error(503, ErrorCode.UNAVAILABLE, "the proxy is starting")
        if self._core.settings.mirror_registries == ():
            return oci_error(404, ErrorCode.UNSUPPORTED, "this is a proxy, not a mirror: set HTTPS_PROXY to it, see /")
        if request.method not in ("GET", "HEAD"):
            return oci_error(405, ErrorCode.UNSUPPORTED, "nothing can be written through a mirror", allow="GET, HEAD")
        if has_body(request):
            return oci_error(400, ErrorCode.UNSUPPORTED, "a GET or HEAD request must not have a body")
        if not await self._login.is_allowed(request.headers.get("authorization")):
            return oci_error(401, ErrorCode.UNAUTHORIZED, _LOGIN_REASON, www_authenticate=LOGIN_CHALLENGE)
        return None

    def _find_mirrored(self, namespace: str) -> Mirrored | None:
        return find_mirrored(namespace, self._core.settings.mirrored)


class MirrorAnswers:
    """Stands behind everything that reads an answer, and before the log."""

    name = "registry-mirror-answers"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Say which registry it is from; leave nothing in the answer that leads the client past the door."""
        exchange, response = exchange_of(flow), flow.response
        if exchange is None or exchange.namespace is None or response is None:
            return
        response.headers.update(mirror_fields(exchange))
        if response.status_code == 401:
            response.status_code, response.reason = 403, "Forbidden"
        response.headers.pop("www-authenticate", None)
        response.headers.pop("set-cookie", None)
        for field in ("link", "location"):
            value = response.headers.get(field)
            if value is not None:
                response.headers[field] = _OWN_LINK.sub(
                    lambda match: match[1] + through_the_door(match[2], exchange.registry), value
                )


def mirror_fields(exchange: Exchange) -> dict[str, str]:
    """Return what the distribution-spec ("Registry Proxying") wants in every answer of a mirror; empty for others."""
    return {} if exchange.namespace is None else {"OCI-Namespace": exchange.namespace}
