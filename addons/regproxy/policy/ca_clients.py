"""Which clients have fetched which CA: who would be cut off if leaves were signed by another one.

A client is an address: behind a NAT or a bridge several are one. Who has fetched a CA has not installed it yet; who has
not fetched it from the proxy may have it by another way. So this is a list to look at, and nothing decides by it.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_CLIENTS = 10_000
"""Addresses that are kept; those that were seen last stay. About 200 bytes each."""


@dataclass(slots=True)
class _Client:
    pulls: bool = False
    """It has been given a leaf: it needs the CA."""
    fetched: list[str] = field(default_factory=list)
    """The fingerprints of the CAs it has fetched."""


class CaClients:
    """Addresses, and what they have fetched."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self.changed = False
        """Whether there is something that has not been written down; the reader of `to_json` resets it."""
        self.on_change: Callable[[str, tuple[bool, list[str]]], None] = lambda _address, _row: None
        """Called with a client and what is known of it now: whether it pulls, and what it has fetched."""

    def connected(self, address: str) -> None:
        """Take note that this client trusts, or should trust, our CA."""
        client = self._clients.get(address)
        if client is None or not client.pulls:
            client = self._client(address)
            client.pulls = self.changed = True
            self.on_change(address, (client.pulls, client.fetched))

    def fetched(self, address: str, fingerprints: tuple[str, ...]) -> None:
        """Take note of the CAs that this client was given; earlier ones are of no interest any more."""
        client = self._client(address)
        if client.fetched != list(fingerprints):
            client.fetched = list(fingerprints)
            self.changed = True
            self.on_change(address, (client.pulls, client.fetched))

    def hear(self, address: str, row: tuple[bool, list[str]]) -> None:
        """Take over what another process has noted of a client."""
        client = self._client(address)
        pulls, fetched = row
        client.pulls, client.fetched = client.pulls or pulls, list(fetched)
        self.changed = True

    def without(self, fingerprint: str) -> tuple[str, ...]:
        """Return the clients that pull and have not fetched this CA, in the order of their addresses' texts."""
        found = (a for a, client in self._clients.items() if client.pulls and fingerprint not in client.fetched)
        return tuple(sorted(found))

    def to_json(self) -> str:
        """Return everything as a text."""
        rows = {a: {"pulls": client.pulls, "fetched": client.fetched} for a, client in self._clients.items()}
        return json.dumps(rows, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "CaClients":
        """Read what `to_json` wrote; what is not of its form is left out."""
        clients = cls()
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError):
            return clients
        for address, row in rows.items() if isinstance(rows, dict) else ():
            fetched = row.get("fetched") if isinstance(row, dict) else None
            if isinstance(fetched, list) and all(isinstance(each, str) for each in fetched):
                client = clients._client(address)
                client.pulls, client.fetched = row.get("pulls") is True, fetched
        return clients

    def _client(self, address: str) -> _Client:
        client = self._clients.setdefault(address, _Client())
        self._clients.move_to_end(address)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return client
