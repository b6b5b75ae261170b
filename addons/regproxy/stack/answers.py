"""How the proxy's own responses are built."""

import math
import time
from collections.abc import Mapping

from mitmproxy import http
from multidict import CIMultiDict

from regproxy.oci.digest import Digest
from regproxy.oci.errors import ErrorCode, error_body
from regproxy.origin.errors import Answer
from regproxy.policy.freshness import Status, UpstreamFailure

PASSED_ON = frozenset(
    {
        "allow",
        "content-type",
        "docker-content-digest",
        "docker-distribution-api-version",
        "docker-ratelimit-source",
        "etag",
        "link",
        "location",
        "oci-filters-applied",
        "oci-subject",
        "ratelimit-limit",
        "ratelimit-remaining",
        "retry-after",
        "warning",
        "www-authenticate",
    }
)
"""Fields of an upstream's answer that mean something to a client; the rest concerns the connection or a cookie jar."""


def answer(
    status: int, headers: Mapping[str, str], body: bytes = b"", *, length_bytes: int | None = None
) -> http.Response:
    """Build a response whose fields are exactly these, with a `Content-Length`.

    `length_bytes` is the length of a body that is not in `body`: a HEAD's, or a file's.
    """
    fields = [(field.encode(), value.encode("utf-8", "surrogateescape")) for field, value in headers.items()]
    response = http.Response.make(status, b"", http.Headers(fields))
    response.raw_content = body
    response.headers["content-length"] = str(len(body) if length_bytes is None else length_bytes)
    return response


def oci_error(status: int, code: ErrorCode, message: str, **fields: str) -> http.Response:
    """Build an error as the distribution-spec wants it ("Error Codes"); `retry_after` becomes `retry-after`."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    headers.update({field.replace("_", "-"): value for field, value in fields.items()})
    return answer(status, headers, error_body(code, message))


def status_for(failure: UpstreamFailure, otherwise: int) -> int:
    """Return the status for a client when an upstream gave no answer that counts: 429 is passed on."""
    return 429 if failure == Status(429) else otherwise


def unavailable(status: int, reason: str, retry_at_s: float | None = None) -> http.Response:
    """Build the answer for content that cannot be had now; `retry_at_s` is of the monotonic clock."""
    code = ErrorCode.TOOMANYREQUESTS if status == 429 else ErrorCode.UNAVAILABLE
    if retry_at_s is None:
        return oci_error(status, code, reason)
    return oci_error(status, code, reason, retry_after=str(max(1, math.ceil(retry_at_s - time.monotonic()))))


def plain_text(status: int, text: str) -> http.Response:
    """Build a text answer for a human."""
    return answer(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


def passed_on(upstream: Answer) -> CIMultiDict[str]:
    """Return the fields of an upstream's answer that the client gets; there may be several of one name.

    Docker reads one challenge in each `WWW-Authenticate`, so they are not put together.
    """
    return CIMultiDict((field, value) for field, value in upstream.headers.items() if field.lower() in PASSED_ON)


def described_by_us(upstream: Answer, ours: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the fields of an upstream's answer with ours in the place of its own, however it writes their names."""
    fields = passed_on(upstream)
    fields.update(ours)
    return fields


def relay(upstream: Answer, *, head: bool) -> http.Response:
    """Give the client an upstream's answer, whatever its status."""
    length = upstream.headers.get("Content-Length")
    # a HEAD is told the length of a GET's body (RFC 9110 section 8.6), which may be one that was written here
    of_get = int(length) if length is not None and length.isdecimal() else len(upstream.body)
    declared = of_get if head else None
    return answer(upstream.status, passed_on(upstream), b"" if head else upstream.body, length_bytes=declared)


def content_fields(digest: Digest, media_type: str) -> dict[str, str]:
    """Return the fields that describe content by digest."""
    return {
        "Content-Type": media_type,
        "Docker-Content-Digest": str(digest),
        "Docker-Distribution-Api-Version": "registry/2.0",
        # RFC 9110 section 8.8.3: an entity tag is quoted.
        "ETag": f'"{digest}"',
    }


def first_value(headers: http.Headers, field: str) -> str | None:
    """Return a request field's value, None when it is absent or blank."""
    value: str = headers.get(field, "")
    return value if value.strip() else None
