"""Watches clients log in at token servers, so that a token is known by the login it was given to.

The answers stream through as before; a copy of what is small enough to be a token is read. `exchange.client` must
have been set (`auth_injector`), before the operator's password takes the place of none.
"""

import contextlib
import time

from mitmproxy import http

from regproxy.oci.endpoint import Other
from regproxy.oci.names import Registry
from regproxy.origin.token_answers import parse_token_answer
from regproxy.origin.tokens import TOKEN_ANSWER_LIMIT_BYTES
from regproxy.policy.identities import Identity, login_of_form
from regproxy.stack.access_log import PassedBytes
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of

FORM_LIMIT_BYTES = 64 * 1024


class ClientTokens:
    """Sees what clients and token servers say to one another."""

    name = "registry-client-tokens"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Have the answer come uncompressed, and keep a copy of a form."""
        exchange = exchange_of(flow)
        if exchange is None or flow.response is not None or not isinstance(exchange.endpoint, Other):
            return
        if flow.request.method == "GET":
            flow.request.headers["accept-encoding"] = "identity"
        elif flow.request.method == "POST" and flow.request.stream:
            flow.request.headers["accept-encoding"] = "identity"
            flow.request.stream = Copied(FORM_LIMIT_BYTES)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Keep a copy of what may be a token. Stands behind `interception`, which lets the answer stream."""
        exchange = exchange_of(flow)
        if exchange is None or flow.response is None or not isinstance(exchange.endpoint, Other):
            return
        if flow.response.status_code == 200 and isinstance(flow.response.stream, PassedBytes):
            owner = await self._owner(flow, exchange.client)
            if owner is not None:
                flow.response.stream = _TokenWatch(self._core, exchange.registry, owner)

    async def _owner(self, flow: http.HTTPFlow, client: Identity) -> Identity | None:
        """Return who asked: by the Authorization, or by the form if there is one; None when it cannot be read."""
        form = flow.request.stream
        if not isinstance(form, Copied):
            return client if flow.request.method == "GET" else None
        login = login_of_form(bytes(form.body)) if form.is_whole else None
        return None if login is None else await self._core.identities.of_login(login)


class Copied(PassedBytes):
    """Passes a body on and keeps a copy of it, if it is not too large."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._limit_bytes = limit_bytes
        self.body = bytearray()

    def __call__(self, data: bytes) -> bytes:
        """Pass the bytes on."""
        if self.count <= self._limit_bytes:
            self.body += data
        return super().__call__(data)

    @property
    def is_whole(self) -> bool:
        """Whether the copy has everything that has passed."""
        return len(self.body) == self.count


class _TokenWatch(Copied):
    def __init__(self, core: Core, server: Registry, owner: Identity) -> None:
        super().__init__(TOKEN_ANSWER_LIMIT_BYTES)
        self._core = core
        self._server = server
        self._owner = owner

    def __call__(self, data: bytes) -> bytes:
        passed = super().__call__(data)
        # The end of the JSON, not of the message: the client may come back with the token before that is read.
        if data and self.is_whole and self.body.rstrip().endswith(b"}"):
            with contextlib.suppress(ValueError):
                issued = parse_token_answer(bytes(self.body), time.time())
                self._core.identities.given(issued.token, self._owner)
                self._core.accepted_logins.accepted(self._server, self._owner)
        return passed
