"""How a request to an upstream can fail."""

from collections.abc import Mapping
from dataclasses import dataclass

from regproxy.policy.freshness import ConnectionFailed, Status, UpstreamFailure
from regproxy.policy.openers import OpenedBy


class UpstreamUnavailable(Exception):  # noqa: N818 - the state of the upstream, as the caller will report it
    """The upstream gave no answer that counts: the caller may serve what it has."""

    def __init__(
        self, reason: str, failure: UpstreamFailure, *, passing: bool = True, retry_at_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.failure = failure
        self.retry_at_s = retry_at_s
        """When it may be asked again, by the monotonic clock; None when it did not say."""
        self.passing = passing
        """Whether it may be gone in seconds; False for what an operator or the registry has to change."""


class UpstreamAway(UpstreamUnavailable):
    """The upstream was not asked, because it gives no answer; the message says since when, why, and what comes next."""

    def __init__(self, reason: str, origin: str, known_s: float) -> None:
        super().__init__(reason, ConnectionFailed())
        self.origin = origin
        """Scheme, host and port."""
        self.known_s = known_s
        """For how long that is known, in seconds."""


class AnswerEncoded(UpstreamUnavailable):
    """The upstream encodes what it was asked for as it is."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin} encodes its answer, though asked not to", Status(502), passing=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of an upstream, its body read."""

    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes
    origin: str
    """Scheme, host and port that answered, after redirects."""
    opened_by: OpenedBy = OpenedBy.NOBODY
    """Whose login the registry was shown."""


class UpstreamRefused(Exception):  # noqa: N818 - the registry's decision, not an error of ours
    """The upstream answered with something other than the content: the client gets its answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.origin} answered {answer.status}")
        self.answer = answer


class AnswerUnusable(UpstreamUnavailable):
    """The upstream gave neither content nor a refusal: a part that nobody asked for, nothing, a redirect to nowhere."""

    def __init__(self, origin: str, status: int) -> None:
        super().__init__(f"{origin} answered {status}, which is no answer to this", Status(502), passing=False)


class AnswerTooLarge(Exception):  # noqa: N818 - names the answer
    """An answer that must fit into memory does not; `limit_bytes` is in the message."""
