"""The proxy's own address: a greeting, the CA, the client set-up script, health (contract section 1.3)."""

from mitmproxy import http

from regproxy.engine.http_layer import Door, door
from regproxy.stack.admin_door import is_admin
from regproxy.stack.answers import answer, plain_text
from regproxy.stack.core import Core
from regproxy.stack.setup_answers import setup_answer
from regproxy.stack.setup_pages import index_page, systemd_script

GREETING = "docker-registry-proxy: The docker caching proxy is working!"
"""The predecessor's text: health checks in the wild look for it."""

CA_PATH = "/ca.crt"


class SetupResponder:
    """Answers every origin-form request to the proxy's port, but those of the registry API (`mirror_door`)."""

    name = "registry-setup-responder"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer at once: nothing here needs the request's body."""
        if flow.response is None and door(flow.request) is Door.OWN and not is_admin(flow.request.path):
            flow.response = self._answer(flow.request)
            # With a query it is our own scripts, which look at the CAs and do not take all of them.
            if self._core.ready and flow.request.method == "GET" and flow.request.path == CA_PATH:
                self._core.ca.fetched_by(flow.client_conn.peername[0])

    def _answer(self, request: http.Request) -> http.Response:
        path = request.path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return plain_text(405, f"{request.method} method is not allowed")
        response = self._page(path, request)
        if request.method == "HEAD" and response.raw_content:
            length = response.headers["content-length"]
            response.raw_content = b""
            response.headers["content-length"] = length
        return response

    def _page(self, path: str, request: http.Request) -> http.Response:
        match path:
            case _ if path == CA_PATH and self._core.ready:
                fields = {"Content-Type": "application/x-x509-ca-cert"}
                return answer(200, fields, self._core.ca.authorities.trust_pem)
            case "/healthz":
                return plain_text(200, "ok\n")
            case "/readyz":
                return self._readiness()
            case _ if path == "/setup" or path.startswith("/setup/"):
                return self._setup(path, request)
            case _ if "text/html" in request.headers.get("accept", ""):
                return answer(
                    200, {"Content-Type": "text/html; charset=utf-8"}, index_page(_base_url(request)).encode()
                )
            case _:
                return plain_text(200, GREETING)

    def _readiness(self) -> http.Response:
        if self._core.is_ending:
            return plain_text(503, "ending\n")
        return plain_text(200, "ready\n") if self._core.ready else plain_text(503, "starting\n")

    def _setup(self, path: str, request: http.Request) -> http.Response:
        if path.startswith("/setup/systemd"):
            return plain_text(200, systemd_script(_base_url(request)))
        name = path.removeprefix("/setup").strip("/")
        query = request.path.partition("?")[2]
        is_browser = "text/html" in request.headers.get("accept", "")
        return setup_answer(self._core, name, query, _own_address(request), html=is_browser)


def _base_url(request: http.Request) -> str:
    """Return the URL the client reached the proxy by, without what could be more than text to a shell."""
    scheme, host = _own_address(request)
    safe = "".join(character for character in host if character.isalnum() or character in ".-_:[]")
    return f"{scheme}://{safe}"


def _own_address(request: http.Request) -> tuple[str, str]:
    """Return scheme and host the client reached us by; a TLS front says its own in X-Forwarded-Proto and -Host."""
    scheme = "https" if _first_of_list(request, "x-forwarded-proto").lower() == "https" else "http"
    return scheme, _first_of_list(request, "x-forwarded-host") or request.host_header or request.host


def _first_of_list(request: http.Request, field: str) -> str:
    """Return what the front nearest to the client said: each one further in may append its own."""
    value: str = request.headers.get(field, "")
    return value.partition(",")[0].strip()
