"""Who has fetched which CA."""

import pytest

from regproxy.policy import ca_clients
from regproxy.policy.ca_clients import CaClients

OLD, NEW = "00" * 32, "ff" * 32


def test_who_pulls_and_has_not_fetched_is_missing() -> None:
    """A client that only looked at /ca.crt does not pull, and one that fetched both is served."""
    clients = CaClients()
    for address in ("10.0.0.2", "10.0.0.10", "10.0.0.1"):
        clients.connected(address)
    clients.fetched("10.0.0.1", (OLD, NEW))
    clients.fetched("10.0.0.2", (OLD,))
    clients.fetched("10.0.0.7", (OLD,))

    assert clients.without(NEW) == ("10.0.0.10", "10.0.0.2")
    assert clients.without(OLD) == ("10.0.0.10",)


def test_a_fetch_replaces_the_one_before() -> None:
    """What a client was given last is what it has."""
    clients = CaClients()
    clients.connected("a")
    clients.fetched("a", (OLD, NEW))
    clients.fetched("a", (OLD,))

    assert clients.without(NEW) == ("a",)


def test_only_news_is_a_change() -> None:
    """A thousand connections of a known client are not written down."""
    clients = CaClients()
    clients.connected("a")
    assert clients.changed
    clients.changed = False
    clients.connected("a")
    assert not clients.changed

    clients.fetched("a", (NEW,))
    assert clients.changed
    clients.changed = False
    clients.fetched("a", (NEW,))
    assert not clients.changed


def test_what_is_written_is_read() -> None:
    """A restart forgets nobody."""
    clients = CaClients()
    clients.connected("10.0.0.1")
    clients.connected("fd00::1")
    clients.fetched("fd00::1", (OLD, NEW))
    clients.fetched("10.0.0.9", (NEW,))

    read = CaClients.from_json(clients.to_json())

    assert read.to_json() == clients.to_json()
    assert read.without(NEW) == ("10.0.0.1",)
    assert not read.changed


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"a": 1}', '{"a": {"pulls": true}}', '{"a": {"fetched": [1]}}', "[" * 100_000]
)
def test_a_damaged_text_is_an_empty_list(text: str) -> None:
    """The list is a help for people, and no reason not to start."""
    assert CaClients.from_json(text).to_json() == "{}"


def test_the_list_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were seen last stay."""
    monkeypatch.setattr(ca_clients, "MOST_CLIENTS", 2)
    clients = CaClients()
    for address in ("a", "b", "c"):
        clients.connected(address)

    assert clients.without(NEW) == ("b", "c")
