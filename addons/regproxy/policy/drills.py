"""Outage drills: for chosen clients, and for a while, a registry is said to be away.

What they get is what they would get in an outage; what fails is noted. Nobody else notices anything.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from regproxy.oci.names import Registry
from regproxy.policy.image_rules import Network, is_within

MOST_FAILURES = 200
LONGEST_DRILL_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that a client could not get."""

    what: str
    client_ip: str
    status: int | None


@dataclass(slots=True)
class Drill:
    """One registry, the clients that take part, and what came of it."""

    registry: Registry
    hosts: frozenset[Registry]
    """The registry by all its names, and its token server."""
    clients: tuple[Network, ...]
    until_s: float
    """Unix time."""
    began_s: float = 0.0
    """Unix time; tells it from the registry's other drills."""
    served: int = 0
    failed: int = 0
    failures: OrderedDict[Failure, int] = field(default_factory=OrderedDict)
    """How often each; the last ones."""

    def covers(self, registry: Registry, client_ip: str) -> bool:
        """Whether it is for this client and registry."""
        return registry in self.hosts and is_within(client_ip, self.clients)


class Drills:
    """Those that are under way, and the last of each registry. `clock` is Unix time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._drills: dict[Registry, Drill] = {}
        self.on_change: Callable[[Drill], None] = lambda _: None
        """Called with what has begun or ended here."""

    def begin(self, drill: Drill) -> None:
        """Begin one in the place of the registry's last."""
        self._drills[drill.registry] = drill
        self.on_change(drill)

    def hear(self, told: Drill) -> None:
        """Take over what has begun or ended at another worker; what came of it here stays."""
        known = self._drills.get(told.registry)
        if known is not None and known.began_s == told.began_s:
            known.until_s = told.until_s
        else:
            self._drills[told.registry] = told

    def end(self, registry: Registry) -> Drill | None:
        """End a registry's drill; what came of it stays."""
        drill = self._drills.get(registry)
        if drill is not None:
            drill.until_s = min(drill.until_s, self._clock())
            self.on_change(drill)
        return drill

    def all(self) -> list[Drill]:
        """Return all of them, the last one first."""
        return sorted(self._drills.values(), key=lambda drill: drill.until_s, reverse=True)

    def is_under_way(self, drill: Drill) -> bool:
        """Whether its time is not up."""
        return self._clock() < drill.until_s

    def covers(self, registry: Registry, client_ip: str) -> Drill | None:
        """Return the drill that says to this client that this registry is away."""
        for drill in self._drills.values():
            if self.is_under_way(drill) and drill.covers(registry, client_ip):
                return drill
        return None

    def __bool__(self) -> bool:
        return bool(self._drills)


def note(drill: Drill, what: str, client_ip: str, status: int | None, *, is_served: bool) -> None:
    """Note what a client got."""
    if is_served:
        drill.served += 1
        return
    drill.failed += 1
    failure = Failure(what, client_ip, status)
    drill.failures[failure] = drill.failures.pop(failure, 0) + 1
    if len(drill.failures) > MOST_FAILURES:
        drill.failures.popitem(last=False)
