"""How a download's failure reaches the clients of other workers: as the same failure, in words that JSON has."""

from typing import Any

from regproxy.origin.errors import UpstreamRefused, UpstreamUnavailable
from regproxy.policy.freshness import ConnectionFailed, NotAsked, Status, TimedOut, UpstreamFailure
from regproxy.store.errors import IngestFailed, StoreError, StoreFull

_FAILURES: dict[str, UpstreamFailure] = {
    "connection": ConnectionFailed(),
    "timeout": TimedOut(),
    "not asked": NotAsked(),
}


class IngestErrors:
    """`store.crew.sharing.ErrorWords`."""

    def told(self, error: Exception) -> dict[str, Any]:
        """Return an error as JSON has it. What a registry answered to one client is nobody else's answer."""
        match error:
            case UpstreamRefused():
                return {"kind": "refused"}
            case UpstreamUnavailable():
                failure = _told_failure(error.failure)
                text, retry_at_s = str(error), error.retry_at_s
                return {"kind": "unavailable", "text": text, "failure": failure, "retry_at_s": retry_at_s}
            case StoreFull():
                return {"kind": "full", "text": str(error)}
            case StoreError() if not isinstance(error, IngestFailed):
                return {"kind": "store", "text": str(error)}
            case _:
                return {"kind": "failed", "text": str(error) or type(error).__name__}

    def heard(self, told: dict[str, Any]) -> Exception | None:
        """Return the error again; None when the next one is to ask for itself."""
        text = told.get("text", "")
        match told["kind"]:
            case "refused":
                return None
            case "unavailable":
                # The monotonic clock is one for all processes of a machine.
                return UpstreamUnavailable(text, _heard_failure(told["failure"]), retry_at_s=told["retry_at_s"])
            case "full":
                return StoreFull(text)
            case "store":
                return StoreError(text)
            case _:
                return IngestFailed(text)


def _told_failure(failure: UpstreamFailure) -> str | int:
    match failure:
        case Status(code):
            return code
        case ConnectionFailed():
            return "connection"
        case TimedOut():
            return "timeout"
        case NotAsked():
            return "not asked"


def _heard_failure(told: str | int) -> UpstreamFailure:
    return Status(told) if isinstance(told, int) else _FAILURES[told]
