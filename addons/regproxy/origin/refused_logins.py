"""Clients' own logins that a registry refused lately, where the proxy's opened what was wanted.

A pull is a dozen requests and a large blob several more: each of them would be refused first.
"""

import hashlib
import secrets
import time
from collections.abc import Callable

from regproxy.origin.request import UpstreamRequest
from regproxy.origin.tokens import REFUSAL_REST_S, Bounded


class RefusedLogins:
    """By registry, repository and login, for a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mask = secrets.token_bytes(32)
        self._until_s: Bounded[tuple[str, str | None, bytes], float] = Bounded()

    def add(self, request: UpstreamRequest) -> None:
        """Remember that this request's own Authorization was refused."""
        self._until_s[self._key(request)] = self._clock() + REFUSAL_REST_S

    def __contains__(self, request: UpstreamRequest) -> bool:
        """Whether it was, a moment ago."""
        return self._clock() < self._until_s.get(self._key(request), 0.0)

    def _key(self, request: UpstreamRequest) -> tuple[str, str | None, bytes]:
        own = next((text for field, text in request.headers if field.lower() == "authorization"), "")
        masked = hashlib.blake2b(own.encode("utf-8", "surrogateescape"), key=self._mask, digest_size=20).digest()
        return request.url.origin, request.fallback.name if request.fallback else None, masked
