"""How much came from upstreams, and how often one failed: numbers that only grow, by the registry that was asked."""

from collections import Counter
from dataclasses import dataclass, field
from typing import assert_never

from regproxy.policy.freshness import ConnectionFailed, NotAsked, Status, TimedOut, UpstreamFailure

MOST_REGISTRIES = 200
"""Wildcards could otherwise let clients fill the memory with names; the rest is counted as `OTHER`."""

OTHER = "other"

WRONG_DIGEST = "wrong_digest"
"""The kind of an answer whose body is not what it is announced as."""


@dataclass(slots=True)
class Meter:
    """Counts by registry, `host` or `host:port`; what its CDN sends counts as the registry's."""

    received_bytes: Counter[str] = field(default_factory=Counter)
    """Of bodies."""
    failures: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """By registry and kind: `connection`, `timeout`, `wrong_digest`, or an answer's status."""

    def received(self, registry: str, count_bytes: int) -> None:
        """Count bytes of a body."""
        known = self.received_bytes
        known[registry if registry in known or len(known) < MOST_REGISTRIES else OTHER] += count_bytes

    def failed(self, registry: str, kind: str) -> None:
        """Count a request that got no usable answer."""
        key = registry, kind
        self.failures[key if key in self.failures or len(self.failures) < MOST_REGISTRIES else (OTHER, kind)] += 1


def kind_of(failure: UpstreamFailure) -> str:
    """Return the one word, or the status, under which a failure is counted."""
    match failure:
        case ConnectionFailed():
            return "connection"
        case TimedOut():
            return "timeout"
        case NotAsked():
            return "not_asked"
        case Status(code):
            return str(code)
        case _:
            assert_never(failure)
