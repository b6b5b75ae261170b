"""Lets only clients in that log in at the proxy, if the operator wants logins (`PROXY_AUTH`).

mitmproxy's own addon for this is for its own CONNECT. The proxy's pages stay open: a client gets the CA there before it
can log in anywhere.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence

from mitmproxy import http
from mitmproxy.utils.htpasswd import HtpasswdFile

from regproxy.engine.http_layer import Door, door
from regproxy.policy.proxy_logins import ProxyLogin, read_basic
from regproxy.stack.answers import plain_text
from regproxy.stack.core import Core

CHALLENGE = 'Basic realm="registry-proxy", charset="UTF-8"'
REASON = "log in at this proxy: http://user:password@proxy:port/ in HTTPS_PROXY"
CHECKS_AT_ONCE = 2
"""bcrypt takes a core for a tenth of a second and more: guessing must not stop the pulls."""


class ClientLogin:
    """Checks the login of a CONNECT (for `Interception`) and of a forwarded request."""

    name = "registry-client-login"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._gate = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._known: dict[str, bytes] = {}
        """User name -> fingerprint of the password that was right last: a hash is not checked at every CONNECT."""

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse a forwarded request without a good login; the field goes no further, whatever it holds."""
        if door(flow.request) is not Door.FORWARD or flow.response is not None:
            return
        header = flow.request.headers.pop("proxy-authorization", None)
        if not await self.is_allowed(header):
            flow.response = plain_text(407, f"registry-proxy: {REASON}\n")
            flow.response.headers["proxy-authenticate"] = CHALLENGE

    async def is_allowed(self, header: str | None) -> bool:
        """Whether a `Proxy-Authorization` field opens the proxy; every one does when no logins are set."""
        logins = self._core.settings.proxy_logins
        if not logins:
            return True
        claimed = read_basic(header)
        return claimed is not None and await self._is_right(logins, *claimed)

    async def _is_right(self, logins: Sequence[ProxyLogin], username: str, password: str) -> bool:
        login = next((login for login in logins if login.username == username), None)
        if login is None:
            return False
        if not login.is_hashed:
            return hmac.compare_digest(login.secret.encode(), password.encode())
        fingerprint = hashlib.sha256(password.encode()).digest()
        if hmac.compare_digest(self._known.get(username, b""), fingerprint):
            return True
        async with self._gate:
            right = await asyncio.to_thread(_matches_hash, login, password)
        if right:
            self._known[username] = fingerprint
        return right


def _matches_hash(login: ProxyLogin, password: str) -> bool:
    try:
        return bool(HtpasswdFile(f"{login.username}:{login.secret}").check_password(login.username, password))
    except ValueError:
        return False  # a hash that is cut short, or a password longer than bcrypt takes
