"""What reached an upstream: one typed record a request, the same form for nginx, the token server and the origin.

The value of an Authorization field is never recorded, only its scheme.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

CHECK_USER_AGENT = "registry-proxy"
"""Who asks when the proxy checks its credentials at start, in the background: no client."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the upstream saw it. Text fields are empty when the client did not send them."""

    method: str
    target: str
    """Path with the query, as sent."""
    status: int
    body_bytes: int
    """Bytes of body sent to the client; fewer than announced when the connection was cut."""
    host: str
    range: str
    authorization: str
    """Scheme of the Authorization field (`Basic`, `Bearer`), `other` when it has none."""
    user_agent: str

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def to_json(self) -> str:
        """Return the line of the log."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the record of a line; KeyError or TypeError when a field is missing or unknown."""
        fields = json.loads(line)
        # nginx writes the status with leading zeros, which a JSON number may not have
        return cls(**fields | {"status": int(fields["status"]), "body_bytes": int(fields["body_bytes"])})


def authorization_scheme(field: str | None) -> str:
    """Return what the log says of an Authorization field."""
    if not field:
        return ""
    scheme, blank, _ = field.partition(" ")
    return scheme if blank else "other"


class AccessLog:
    """The requests an upstream has answered since the log (or this mark in it) began."""

    def __init__(self, read: Callable[[], Sequence[Request]], start: int = 0) -> None:
        self._read = read
        self._start = start

    def requests(
        self, *, method: str | None = None, path_contains: str = "", status: int | None = None
    ) -> list[Request]:
        """Return the matching requests, oldest first, but for the check at start."""
        return [
            request
            for request in self._read()[self._start :]
            if request.user_agent != CHECK_USER_AGENT
            and (method is None or request.method == method)
            and path_contains in request.path
            and (status is None or request.status == status)
        ]

    def count(self, *, method: str | None = None, path_contains: str = "", status: int | None = None) -> int:
        """Return how many requests match."""
        return len(self.requests(method=method, path_contains=path_contains, status=status))

    def mark(self) -> "AccessLog":
        """Return the part of this log that begins now."""
        return AccessLog(self._read, len(self._read()))


class LogFile:
    """Reads the JSON lines of a log that a server is still writing.

    `settle` is called first and returns once every answered request has its line.
    """

    def __init__(self, path: Path, settle: Callable[[], None]) -> None:
        self._path = path
        self._settle = settle

    def __call__(self) -> list[Request]:
        """Return all requests so far."""
        self._settle()
        if not self._path.exists():
            return []
        complete, _, _ = self._path.read_text().rpartition("\n")
        return [Request.from_json(line) for line in complete.splitlines()]
