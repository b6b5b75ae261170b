"""What differs between two outcomes of one case."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from lab.conformance.visit import NAMED_FIELDS, Outcome


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which an answer through the proxy is not the registry's own."""

    way: str
    chapter: str
    title: str
    what: str
    """`Accept-Ranges: bytes instead of none`."""


def differences(way: str, chapter: str, wanted: Outcome, got: Outcome) -> Iterator[Difference]:
    """Yield what differs. Where the status does, the rest follows from it and is left out."""
    assert (wanted.title, wanted.end) == (got.title, got.end)
    for what in _whats(wanted, got):
        yield Difference(way, chapter, got.title, what)


def _whats(wanted: Outcome, got: Outcome) -> Iterator[str]:
    if got.status != wanted.status:
        yield f"{got.status} instead of {wanted.status}"
        return
    if _error_codes(got.body) != _error_codes(wanted.body):
        yield f"error {_error_codes(got.body)} instead of {_error_codes(wanted.body)}"
        return
    both_errors = _error_codes(got.body) is not None
    if got.body != wanted.body:
        yield "other words in the error" if both_errors else "other body"
    for name in NAMED_FIELDS:
        if name == "Content-Length" and got.body != wanted.body:
            continue
        mine, theirs = got.fields.get(name), wanted.fields.get(name)
        if mine != theirs:
            yield f"{name}: {mine or 'none'} instead of {theirs or 'none'}"


def _error_codes(body: bytes) -> str | None:
    """Return the codes of an error body of the specification, None when it is none."""
    try:
        return ", ".join(error["code"] for error in json.loads(body)["errors"])
    except (ValueError, TypeError, KeyError):
        return None
