"""A failed download fails in the same way for the clients of other workers."""

import json

import pytest

from regproxy.oci.digest import Digest
from regproxy.origin.errors import Answer, UpstreamRefused, UpstreamUnavailable
from regproxy.policy.freshness import ConnectionFailed, NotAsked, Status, TimedOut, UpstreamFailure
from regproxy.stack.ingest_errors import IngestErrors
from regproxy.store.errors import DigestMismatch, IngestFailed, StoreError, StoreFull

ERRORS = IngestErrors()


def passed_on(error: Exception) -> Exception | None:
    return ERRORS.heard(json.loads(json.dumps(ERRORS.told(error))))


@pytest.mark.parametrize("failure", [ConnectionFailed(), TimedOut(), NotAsked(), Status(429)])
def test_a_registry_that_gives_no_answer_gives_none_to_the_others(failure: UpstreamFailure) -> None:
    """Reason, kind and time to wait are the same."""
    heard = passed_on(UpstreamUnavailable("no answer", failure, retry_at_s=12.5))

    assert isinstance(heard, UpstreamUnavailable)
    assert (str(heard), heard.failure, heard.retry_at_s) == ("no answer", failure, 12.5)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreFull("no room"), StoreFull),
        (StoreError("broken disk"), StoreError),
        (IngestFailed("cut"), IngestFailed),
        (DigestMismatch(Digest.of(b"a"), Digest.of(b"b")), IngestFailed),
        (RuntimeError("a mistake"), IngestFailed),
    ],
)
def test_other_failures_keep_their_kind(error: Exception, kind: type[Exception]) -> None:
    """What passes by the cache in one worker does so in the others; the text is the same."""
    heard = passed_on(error)

    assert type(heard) is kind
    assert str(heard) == str(error)


def test_a_refusal_is_nobody_elses() -> None:
    """The next client asks for itself."""
    assert passed_on(UpstreamRefused(Answer(401, {}, b"", "https://registry.test"))) is None
