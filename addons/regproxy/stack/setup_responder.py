"""The proxy's own address: a greeting, the CA, the client set-up script, health (contract section 1.3)."""

from mitmproxy import http

from regproxy.engine.http_layer import Door, door
from regproxy.oci.errors import ErrorCode
from regproxy.stack.answers import answer, oci_error, plain_text
from regproxy.stack.core import Core
from regproxy.stack.setup_pages import index_page, systemd_script

GREETING = "docker-registry-proxy: The docker caching proxy is working!"
"""The predecessor's text: health checks in the wild look for it."""

CA_TYPE = "application/x-x509-ca-cert"


class SetupResponder:
    """Answers every origin-form request to the proxy's port."""

    name = "registry-setup-responder"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer at once: nothing here needs the request's body."""
        if flow.response is None and door(flow.request) is Door.OWN:
            flow.response = self._answer(flow.request)
            if flow.request.method == "GET" and flow.response.headers.get("content-type") == CA_TYPE:
                self._core.ca.fetched_by(flow.client_conn.peername[0])

    def _answer(self, request: http.Request) -> http.Response:
        path = request.path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return plain_text(405, f"{request.method} method is not allowed")
        if path == "/v2" or path.startswith("/v2/"):
            return oci_error(
                404, ErrorCode.UNSUPPORTED, "this address is a proxy: set HTTPS_PROXY to it, see / for how"
            )
        response = self._page(path, request)
        if request.method == "HEAD" and response.raw_content:
            length = response.headers["content-length"]
            response.raw_content = b""
            response.headers["content-length"] = length
        return response

    def _page(self, path: str, request: http.Request) -> http.Response:
        base_url = _base_url(request)
        match path:
            case "/ca.crt" if self._core.ready:
                return answer(200, {"Content-Type": CA_TYPE}, self._core.ca.authorities.trust_pem)
            case "/healthz":
                return plain_text(200, "ok\n")
            case "/readyz":
                return plain_text(200, "ready\n") if self._core.ready else plain_text(503, "starting\n")
            case _ if path.startswith("/setup/systemd"):
                return answer(200, {"Content-Type": "text/plain; charset=utf-8"}, systemd_script(base_url).encode())
            case _ if "text/html" in request.headers.get("accept", ""):
                return answer(200, {"Content-Type": "text/html; charset=utf-8"}, index_page(base_url).encode())
            case _:
                return plain_text(200, GREETING)


def _base_url(request: http.Request) -> str:
    """Return the URL the client reached the proxy by; a TLS front end says its own in X-Forwarded-Proto and -Host."""
    scheme = "https" if _first_of_list(request, "x-forwarded-proto").lower() == "https" else "http"
    host = _first_of_list(request, "x-forwarded-host") or request.host_header or request.host
    safe = "".join(character for character in host if character.isalnum() or character in ".-_:[]")
    return f"{scheme}://{safe}"


def _first_of_list(request: http.Request, field: str) -> str:
    """Return what the front nearest to the client said: each one further in may append its own."""
    value: str = request.headers.get(field, "")
    return value.partition(",")[0].strip()
