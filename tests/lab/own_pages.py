"""All that a proxy says of itself at its own address: metrics, the dashboard, the admin API."""

import contextlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException

from lab.proxy import Proxy

_LIMIT_S = 5.0
_PAGES = (
    *("/metrics", "/_proxy/dashboard.json", "/"),
    *(
        f"/_proxy/api/v1/{path}"
        for path in ("status", "images", "requests?after=0", "pins", "warmings", "verification", "openapi.json")
    ),
)


def own_pages(proxy: Proxy) -> Iterator[tuple[str, bytes]]:
    """Give path and answer of each, and an explanation of each image and of the last requests.

    Nothing, or less, of a proxy that does not answer (any more).
    """
    if not proxy.is_running:
        return
    token = proxy.settings.get("ADMIN_TOKEN", "")
    headers = {"Host": f"127.0.0.1:{proxy.address.port}"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with contextlib.closing(HTTPConnection(*proxy.address, timeout=_LIMIT_S)) as connection:
            for path in _PAGES:
                body = _answer(connection, path, headers)
                yield path, body
                for subject in _subjects(path, body):
                    why = f"/_proxy/api/v1/why?subject={subject}"
                    yield why, _answer(connection, why, headers)
    except (OSError, HTTPException):
        return


def _answer(connection: HTTPConnection, path: str, headers: dict[str, str]) -> bytes:
    connection.request("GET", path, headers=headers)
    with connection.getresponse() as response:
        return response.read()


def _subjects(path: str, body: bytes) -> list[str]:
    """Return some of what there is an explanation of."""
    try:
        told = json.loads(body)
    except ValueError:
        return []
    if path.endswith("/images"):
        return [image["image"] for image in told.get("images", ())][:2]
    if "/requests" in path:
        return [request["request_id"] for request in told.get("requests", ())][-2:]
    return []
