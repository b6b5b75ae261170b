"""Which clients may use the proxy, and which images they may have: `ALLOW_CLIENTS` and `IMAGE_RULES`.

By both doors, for reads, lists and pushes alike, and for tokens: the operator's login may be in a token request. The
proxy's own pages stay open: a monitor asks for its health from anywhere, and a CA is no secret.
"""

from collections.abc import Iterable
from urllib.parse import parse_qs

from mitmproxy import http

from regproxy.engine.http_layer import Door, door
from regproxy.oci.endpoint import V1, Blob, BlobUpload, Catalog, Endpoint, Manifest, Other, Ping, Referrers, Tags
from regproxy.oci.errors import ErrorCode
from regproxy.policy.credentials import repositories_of_scope
from regproxy.policy.image_rules import denying_rule, may_use
from regproxy.stack.answers import oci_error
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, unanswered

STRANGER = "this proxy does not serve {}: its network is not in ALLOW_CLIENTS"


class ClientRules:
    """Stands behind `interception`, which has found out what is asked."""

    name = "registry-client-rules"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse what the operator does not want."""
        exchange = unanswered(flow)
        if exchange is None and (door(flow.request) is not Door.FORWARD or flow.response is not None):
            return
        client = flow.client_conn.peername[0] if flow.client_conn.peername else ""
        if not may_use(client, self._core.settings.allow_clients):
            flow.response = oci_error(403, ErrorCode.DENIED, STRANGER.format(client))
        elif exchange is not None and (reason := self.denial(exchange, flow.request.path, client)) is not None:
            exchange.error = reason
            flow.response = oci_error(403, ErrorCode.DENIED, reason)

    def denial(self, exchange: Exchange, target: str, client: str) -> str | None:
        """Return why a client is refused what it asks for, None when it is not."""
        rules = self._core.settings.image_rules
        if rules:
            for name in _asked_for(exchange.endpoint, target):
                rule = denying_rule(rules, exchange.registry, name, client)
                if rule is not None:
                    what = exchange.registry if name is None else f"{exchange.registry}/{name}"
                    return f"{what} is not served to {client} by this proxy: IMAGE_RULES has `{rule}`"
        return None


def _asked_for(endpoint: Endpoint, target: str) -> Iterable[str | None]:
    """Return the repositories that a request is about; None among them stands for the registry as a whole."""
    match endpoint:
        case Blob(name) | Manifest(name) | Tags(name) | Referrers(name):
            return (name,)
        case BlobUpload(name):
            return (name, *parse_qs(target.partition("?")[2]).get("from", ()))
        case Other():
            return repositories_of_scope(target)
        case Catalog():
            return (None,)
        case Ping() | V1():
            return ()
