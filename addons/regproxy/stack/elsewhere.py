"""What other workers have counted since the proxy was started: added to what this one has, it is of the whole."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Elsewhere:
    """Sums that are shown to operators; nothing for a process that works alone."""

    by_cache_status: Counter[str] = field(default_factory=Counter)
    """Requests."""
    sent_bytes: int = 0
    """Of bodies, to clients."""
    received_bytes: Counter[str] = field(default_factory=Counter)
    """Of bodies, from upstreams, by registry."""
    failures: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Of requests to upstreams, by registry and reason."""
    shared_store: Counter[str] = field(default_factory=Counter)
    """What `SharedCounts.sums` names."""
