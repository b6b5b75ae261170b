"""What a GET or HEAD of content asks for, whichever way it came: read by mitmproxy or by `request_head`."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from mitmproxy import http

from regproxy.engine.request_head import RequestHead


class Read(NamedTuple):
    """What decides about the answer besides the path."""

    method: str
    accept: Sequence[str]
    cache_control: str
    range: str | None
    if_range: str | None

    @classmethod
    def of_request(cls, request: http.Request) -> Self:
        """Read mitmproxy's request."""
        fields = request.headers
        return cls(
            request.method,
            fields.get_all("accept"),
            fields.get("cache-control", ""),
            fields.get("range"),
            fields.get("if-range"),
        )

    @classmethod
    def of_head(cls, head: RequestHead) -> Self:
        """Read a plain head."""
        return cls(
            head.method,
            head.values("accept"),
            ", ".join(head.values("cache-control")),
            head.field("range"),
            head.field("if-range"),
        )

    @property
    def is_head(self) -> bool:
        """Whether no body is to follow."""
        return self.method == "HEAD"
