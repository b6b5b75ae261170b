"""The ways by which a case is asked: straight at the registry, through the proxy door, at the mirror door."""

import http.client
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from lab.http_client import DirectRoute, ProxyRoute, Response
from lab.proxy import Proxy

type Body = bytes | Iterable[bytes] | None

_LIMIT_S = 30.0
CUT = b" (cut)"
"""Stands behind a body that ended before its length; some registries answer several ranges so."""

_API_PATH = re.compile(r"/v2/")


class Way(Protocol):
    """One way to a registry."""

    @property
    def word(self) -> str:
        """Its name in the names of repositories; all are equally long."""
        ...

    def send(self, method: str, host: str, target: str, headers: Mapping[str, str], body: Body) -> Response:
        """Return the answer; a body that is no `bytes` is sent in chunks."""
        ...

    def seen(self, host: str, text: str) -> str:
        """Return a field as it would be, had the registry been asked itself."""
        ...


@dataclass(frozen=True, slots=True)
class Tunnel:
    """To the registry's name, straight or through CONNECT."""

    word: str
    route: DirectRoute | ProxyRoute

    def send(self, method: str, host: str, target: str, headers: Mapping[str, str], body: Body) -> Response:
        """Return the answer."""
        return _exchange(self.route.connect(urlsplit(f"https://{host}")), method, target, headers, body)

    def seen(self, host: str, text: str) -> str:  # noqa: ARG002 - the same for every way
        """Return it as it is."""
        return text


@dataclass(frozen=True, slots=True)
class Mirror:
    """To the proxy's own address, with the registry in the path."""

    word: str
    proxy: Proxy

    def send(self, method: str, host: str, target: str, headers: Mapping[str, str], body: Body) -> Response:
        """Return the answer."""
        at_door = "/v2/" if target == "/v2/" else target.replace("/v2/", f"/v2/{host}/", 1)
        connection = http.client.HTTPConnection(*self.proxy.address, timeout=_LIMIT_S)
        return _exchange(connection, method, at_door, headers, body)

    def seen(self, host: str, text: str) -> str:
        """Return it without the registry in its paths; a path that would lead past the door is marked."""
        inside = "\n"
        marked = text.replace(f"/v2/{host}/", inside)
        return _API_PATH.sub("/v2/(past the door)/", marked).replace(inside, "/v2/")


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: Body
) -> Response:
    try:
        connection.request(method, target, body, dict(headers))
        with connection.getresponse() as response:
            try:
                body_read = response.read()
            except http.client.IncompleteRead as cut:
                body_read = cut.partial + CUT
            return Response(response.status, response.headers, body_read)
    finally:
        connection.close()
