"""Connections are counted over all workers: by address and in all, without those of the dead."""

from regproxy.engine.connection_count import TOO_MANY, TOO_MANY_OF_YOURS, ConnectionLimits
from regproxy.engine.connection_tables import ConnectionTables, CrewConnectionCount

NO_LIMIT = ConnectionLimits(0, 0)


def counts(limits: ConnectionLimits, own: ConnectionLimits = NO_LIMIT) -> tuple[CrewConnectionCount, ...]:
    tables = ConnectionTables.of(3)
    return tuple(CrewConnectionCount(own, limits, tables, number) for number in (1, 2, 3))


def test_a_client_is_counted_at_all_workers() -> None:
    """Two at one worker and one at another are three; when one ends there is room at all of them."""
    one, two, three = counts(ConnectionLimits(0, 3))
    assert [one.begin("192.0.2.1"), one.begin("192.0.2.1"), two.begin("192.0.2.1")] == [None] * 3
    assert three.begin("192.0.2.1") == one.begin("192.0.2.1") == TOO_MANY_OF_YOURS
    assert three.begin("192.0.2.2") is None
    two.end("192.0.2.1")
    assert three.begin("192.0.2.1") is None


def test_all_are_counted_at_all_workers() -> None:
    """The limit of all is that of all workers together."""
    one, two, three = counts(ConnectionLimits(2, 0))
    assert [one.begin("192.0.2.1"), two.begin("192.0.2.2")] == [None] * 2
    assert three.begin("192.0.2.3") == TOO_MANY
    one.end("192.0.2.1")
    assert three.begin("192.0.2.3") is None


def test_a_process_has_no_more_than_it_has_files_for() -> None:
    """That limit is each worker's own."""
    one, two, _ = counts(NO_LIMIT, ConnectionLimits(1, 0))
    assert one.begin("192.0.2.1") is None
    assert one.begin("192.0.2.1") == TOO_MANY
    assert two.begin("192.0.2.1") is None


def test_many_clients_do_not_get_into_each_others_way() -> None:
    """Five hundred at each worker, each known to the others with its own number."""
    one, two, three = counts(ConnectionLimits(0, 2))
    for client in (f"10.0.{number // 250}.{number % 250}" for number in range(500)):
        assert [one.begin(client), two.begin(client)] == [None] * 2
        assert three.begin(client) == TOO_MANY_OF_YOURS
