"""How many connections clients may have: one that opens more than it needs must leave room for the others.

Counted where connections begin and where they end, by the client's address; what is over a limit is told so and closed
before a byte of it is read.
"""

import logging
import resource
from collections import Counter
from dataclasses import dataclass

from regproxy.engine.strict_server import refusal

logger = logging.getLogger(__name__)

RESERVED_FILES = 256
"""For the cache's files, the index, pipes and what Python itself opens."""

FILES_PER_CONNECTION = 2
"""The client's, and an upstream's or a stored blob's."""

TOO_MANY = refusal(503, "the proxy has as many connections as it may have: see MAX_CONNECTIONS")
TOO_MANY_OF_YOURS = refusal(503, "this client has as many connections as it may have: see MAX_CONNECTIONS_PER_CLIENT")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Numbers of connections; 0 is no limit."""

    total: int
    per_client: int


class ConnectionCount:
    """The open connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._total = 0
        self._open: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def begin(self, client_ip: str) -> bytes | None:
        """Count a new connection; or return what to answer in its place."""
        per_client = self._limits.per_client
        refused = None
        if per_client and self._of_client(client_ip) >= per_client:
            refused = TOO_MANY_OF_YOURS
        elif self._is_full():
            refused = TOO_MANY
        if refused is None:
            self._open[client_ip] += 1
            self._total += 1
            self._changed(client_ip)
            return None
        if not self._refused[client_ip]:
            logger.warning("%s has %d connections and gets no more", client_ip, self._of_client(client_ip))
        self._refused[client_ip] += 1
        return refused

    def end(self, client_ip: str) -> None:
        """Forget a connection that was counted."""
        self._total -= 1
        self._open[client_ip] -= 1
        self._changed(client_ip)
        if self._open[client_ip] <= 0:
            del self._open[client_ip]
            refused = self._refused.pop(client_ip, 0)
            if refused:
                logger.warning("%s was refused %d connections and has none left", client_ip, refused)

    # What is another thing where several workers count together (connection_tables).

    def _of_client(self, client_ip: str) -> int:
        return self._open[client_ip]

    def _is_full(self) -> bool:
        return bool(self._limits.total) and self._total >= self._limits.total

    def _changed(self, client_ip: str) -> None:
        """Note that a client has one more or one less."""

    def __len__(self) -> int:
        return self._total


def limits_of_this_process(wanted: ConnectionLimits) -> ConnectionLimits:
    """Return the limits with as many connections as there are files for; the soft limit of files is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = RESERVED_FILES + FILES_PER_CONNECTION * wanted.total if wanted.total else hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    possible = max(1, (soft - RESERVED_FILES) // FILES_PER_CONNECTION)
    return ConnectionLimits(min(wanted.total or possible, possible), wanted.per_client)
