"""regproxy.stack.recent_requests: what is remembered of requests, for whom, and for how long."""

import asyncio

from regproxy.oci.endpoint import parse_endpoint
from regproxy.oci.names import Registry
from regproxy.policy.tiers import RequestClass
from regproxy.stack.access_log import Entry, UpstreamPart
from regproxy.stack.admin.requests_of_all import RequestsOfAll
from regproxy.stack.desk import Desk
from regproxy.stack.exchange import CacheStatus, Exchange
from regproxy.stack.recent_requests import RecentRequests


def entry(name: str = "app", *, registry: str = "quay.io", with_exchange: bool = True) -> Entry:
    """Return a request for a tag, with a credential that must not be kept."""
    exchange = Exchange(
        Registry.parse(registry),
        "https",
        parse_endpoint("GET", f"/v2/{name}/manifests/1"),
        RequestClass.MANIFEST_DEFAULT,
        authorization="Bearer secret",
        cache_status=CacheStatus.MISS,
    )
    return Entry(
        method="GET",
        target=f"/v2/{name}/manifests/1?signature=secret",
        host=registry,
        status=200,
        sent_bytes=10,
        client_ip="192.0.2.1",
        user_agent="",
        upstream=UpstreamPart(registry),
        began_s=100.0,
        exchange=exchange if with_exchange else None,
        error=None,
    )


def test_only_the_last_ones_are_kept() -> None:
    """The sums go on counting; what is not a registry's is not counted."""
    recent = RecentRequests(kept=3)
    entries = [entry() for _ in range(5)]
    for each in (*entries, entry(with_exchange=False)):
        recent.note(each)
    ids = [each.exchange.request_id for each in entries if each.exchange]

    assert len(set(ids)) == 5
    assert recent.find(ids[1]) is None
    assert [each.request_id for each in recent.about("", "", "", 10)] == ids[:1:-1]
    assert (recent.by_cache_status, recent.sent_bytes, recent.newest) == ({"MISS": 5}, 50, 5)


def test_no_secret_is_kept() -> None:
    """Neither the query nor the Authorization."""
    recent = RecentRequests()
    recent.note(entry())

    assert "secret" not in repr(recent.about("", "", "", 1))


def test_requests_are_found_by_what_they_were_for() -> None:
    """Registry, repository, reference; an empty one is any."""
    recent = RecentRequests()
    recent.note(entry("a"))
    recent.note(entry("b", registry="ghcr.io"))

    assert [each.name for each in recent.about("quay.io", "", "", 10)] == ["a"]
    assert [each.name for each in recent.about("", "b", "1", 10)] == ["b"]
    assert recent.about("", "b", "2", 10) == []


async def test_who_watches_is_told_of_the_next() -> None:
    """All who wait get it; who knows an older number gets all that came since."""
    noted = RecentRequests()
    noted.note(entry("old"))
    recent = RequestsOfAll(noted, Desk())
    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(recent.after(1, 30.0, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        noted.note(entry("new"))

    assert [[each.name for each in watcher.result()] for watcher in watchers] == [["new"], ["new"]]
    assert [each.name for each in await recent.after(0, 0.0, 10)] == ["old", "new"]
    assert await recent.after(2, 0.01, 10) == []
