"""Error bodies in the form that every registry client reads.

OCI distribution-spec 1.1, "Error Codes": code-1 to code-14, and the body `{"errors": [{"code", "message", "detail"}]}`.
The HTTP status that goes with a code depends on the situation and is chosen by the caller.
"""

import json
from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong, in the vocabulary of the specification."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"

    # Not among the 14 of the specification; the distribution project answers with both, and clients know them.
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"


def error_body(code: ErrorCode, message: str, detail: object = None) -> bytes:
    """Return the JSON body of one error; `detail` is any JSON value and is left out when it is None."""
    error: dict[str, object] = {"code": code.value, "message": message}
    if detail is not None:
        error["detail"] = detail
    return json.dumps({"errors": [error]}).encode()
