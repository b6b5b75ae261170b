"""Notes what clients pull, so that what is in use is known when a registry is away (`admin.readiness`).

A listener of the access log, so it must be quick: about 1 µs a request.
"""

from regproxy.oci.endpoint import Manifest
from regproxy.stack.access_log import Entry
from regproxy.stack.core import Core


class Pulls:
    """Tells the store."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def note(self, entry: Entry) -> None:
        """Note a manifest that a client got."""
        exchange = entry.exchange
        if exchange is None or entry.status != 200 or entry.method not in ("GET", "HEAD"):
            return
        endpoint = exchange.endpoint
        if isinstance(endpoint, Manifest) and self._core.store.is_open:
            self._core.store.note_pull(str(exchange.registry), endpoint.name, str(endpoint.reference))
