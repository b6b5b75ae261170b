"""Which logins of clients were accepted, where: in an outage a password that was right a while ago counts.

Kept in memory, without the passwords (`policy.identities`): after a restart nobody's login is known to be right.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from regproxy.oci.names import Registry
from regproxy.policy.identities import Identity

ACCEPTED_S = 7 * 86400.0
"""How long: an outage takes hours, and a password that was changed must not be good for ever."""

MOST_LOGINS = 10_000


class AcceptedLogins:
    """The logins that a registry or its token server took. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accepted_at_s: OrderedDict[tuple[Registry, Identity], float] = OrderedDict()
        self.on_change: Callable[[Registry, Identity, float | None], None] = lambda _host, _client, _at_s: None
        """Called when a login was accepted (when, by the clock) or refused (None)."""

    def accepted(self, host: Registry, client: Identity) -> None:
        """Remember that a host has just taken this client's login."""
        if client.is_nobody:
            return
        at_s = self._clock()
        self.hear(host, client, at_s)
        self.on_change(host, client, at_s)

    def hear(self, host: Registry, client: Identity, at_s: float | None) -> None:
        """Remember what another process of this proxy has seen; None when a login was refused."""
        if at_s is None:
            self._accepted_at_s.pop((host, client), None)
            return
        self._accepted_at_s[host, client] = at_s
        self._accepted_at_s.move_to_end((host, client))
        if len(self._accepted_at_s) > MOST_LOGINS:
            self._accepted_at_s.popitem(last=False)

    def refused(self, host: Registry, client: Identity) -> None:
        """Forget a login that a host does not take any more."""
        self._accepted_at_s.pop((host, client), None)
        self.on_change(host, client, None)

    def is_accepted(self, host: Registry, client: Identity) -> bool:
        """Whether a host took this login lately."""
        accepted_at_s = self._accepted_at_s.get((host, client))
        return accepted_at_s is not None and self._clock() - accepted_at_s < ACCEPTED_S
