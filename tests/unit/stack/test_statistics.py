"""What is counted for the dashboard, by whom it is fetched, and that it stays in bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import parse_endpoint
from regproxy.oci.names import Registry as RegistryName
from regproxy.origin.quota import KnownQuota
from regproxy.origin.trace import Trace
from regproxy.policy.quota import Quota
from regproxy.policy.tiers import RequestClass
from regproxy.stack.access_log import Entry, UpstreamPart
from regproxy.stack.busiest import Busiest
from regproxy.stack.core import Core
from regproxy.stack.dashboard_document import DiskState, document
from regproxy.stack.downloads import Downloads
from regproxy.stack.exchange import CacheStatus, Exchange
from regproxy.stack.statistics import MOST_ERRORS, QUOTA_SAMPLES, Statistics
from regproxy.store.day_file import NAME
from regproxy.store.eviction import Usage

DIGEST = Digest.of(b"layer")
DAY_S = 86400
NOON_S = 20_000 * DAY_S + DAY_S // 2


@dataclass
class Clock:
    """Stands still until it is turned."""

    now_s: float = NOON_S

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def entry(
    status: CacheStatus = CacheStatus.HIT,
    path: str = f"/v2/team/app/blobs/{DIGEST}",
    method: str = "GET",
    *,
    answered: int | None = 200,
    registry: str = "quay.io",
    passed_bytes: str = "",
    error: str | None = None,
    user_agent: str = "",
    trace: Trace | None = None,
    sent_bytes: int = 10,
) -> Entry:
    """Return a request that has been answered."""
    endpoint = parse_endpoint(method, path)
    exchange = Exchange(
        RegistryName.parse(registry),
        "https",
        endpoint,
        RequestClass.BLOB_BY_DIGEST,
        cache_status=status,
        trace=trace,
    )
    return Entry(
        method=method,
        target=path,
        host=registry,
        status=answered,
        sent_bytes=sent_bytes,
        client_ip="192.0.2.7",
        user_agent=user_agent,
        upstream=UpstreamPart(registry, bytes=passed_bytes),
        began_s=0.0,
        exchange=exchange,
        error=error,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def statistics(core: Core, clock: Clock) -> Statistics:
    return Statistics(core, clock)


class TestReads:
    @pytest.mark.parametrize(
        ("status", "method", "hits", "misses"),
        [
            (CacheStatus.HIT, "GET", 1, 0),
            (CacheStatus.REVALIDATED, "HEAD", 1, 0),
            (CacheStatus.STALE, "GET", 1, 0),
            (CacheStatus.MISS, "GET", 0, 1),
            (CacheStatus.EXPIRED, "GET", 0, 1),
            (CacheStatus.BYPASS, "GET", 0, 1),
            (CacheStatus.BYPASS, "HEAD", 0, 0),
        ],
    )
    async def test_each_cache_status(
        self, statistics: Statistics, status: CacheStatus, method: str, hits: int, misses: int
    ) -> None:
        """What the cache answered is a hit; a HEAD that goes by it, as before a push, is no read."""
        statistics.count(entry(status, method=method))
        assert (statistics.today().hits, statistics.today().misses) == (hits, misses)

    @pytest.mark.parametrize(
        "other",
        [
            entry(path="/v2/"),
            entry(path="/v2/a/tags/list"),
            entry(answered=404),
            entry(answered=None),
            entry(path="/v2/a/blobs/uploads/", method="POST", answered=202),
        ],
        ids=["ping", "list", "not found", "no answer", "push"],
    )
    async def test_what_is_no_read(self, statistics: Statistics, other: Entry) -> None:
        """Counts neither as a hit nor as bytes, and names no image."""
        statistics.count(other)
        today = statistics.today()
        assert (today.hits, today.misses, today.served_bytes) == (0, 0, 0)
        assert statistics.busiest.top(10) == []

    async def test_bytes_that_mitmproxy_passed_count_as_fetched(self, statistics: Statistics) -> None:
        """What our own client fetched counts by itself, and not again here."""
        statistics.count(entry(CacheStatus.BYPASS, passed_bytes="10"))
        statistics.count(entry(CacheStatus.MISS, passed_bytes="10", trace=Trace(received_bytes=10)))
        assert statistics.today().fetched_bytes == 10
        assert statistics.today().served_bytes == 20

    async def test_the_meter_is_taken_over_once(self, statistics: Statistics, core: Core) -> None:
        """However often one looks."""
        core.upstream.meter.received("quay.io", 100)
        for _ in range(3):
            statistics.look()
        core.upstream.meter.received("ghcr.io", 5)
        statistics.look()
        assert statistics.today().fetched_bytes == 105
        assert statistics.hour()[-1].fetched_bytes == 105


class TestTime:
    async def test_a_day_ends_at_midnight_utc(self, statistics: Statistics, clock: Clock) -> None:
        """The day before stays in the week; the busiest images begin anew."""
        statistics.count(entry())
        clock.now_s += DAY_S
        statistics.count(entry(sent_bytes=7))
        week = statistics.week()
        assert [counts.served_bytes for _, counts in week] == [0, 0, 0, 0, 0, 10, 7]
        assert [reads.served_bytes for _, _, reads in statistics.busiest.top(5)] == [7]
        assert statistics.busiest_since_s == 20_001 * DAY_S

    async def test_an_hour_has_sixty_minutes_also_those_without_a_request(
        self, statistics: Statistics, clock: Clock
    ) -> None:
        """The oldest goes when a new one comes."""
        statistics.count(entry())
        clock.now_s += 59 * 60
        statistics.count(entry(sent_bytes=3))
        hour = statistics.hour()
        assert (len(hour), hour[0].served_bytes, hour[-1].served_bytes) == (60, 10, 3)
        clock.now_s += 60
        statistics.look()
        assert statistics.hour()[0].served_bytes == 0

    async def test_a_clock_that_is_set_back_loses_nothing(self, statistics: Statistics, clock: Clock) -> None:
        """Nor does it count into the past."""
        statistics.count(entry())
        clock.now_s -= 2 * DAY_S
        statistics.count(entry())
        assert statistics.today().hits == 2

    async def test_the_next_process_goes_on(self, core: Core, clock: Clock) -> None:
        """With what it has counted itself before it read the file."""
        first = Statistics(core, clock)
        first.count(entry())
        first.close()
        clock.now_s += 60
        second = Statistics(core, clock)
        second.count(entry())
        second.open()
        assert second.today().hits == 2
        assert second.history.since_s == NOON_S

    async def test_a_broken_file_is_told_and_left_out(
        self, core: Core, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The proxy starts."""
        (core.settings.cache_directory / NAME).write_text("broken")
        statistics = Statistics(core, clock)
        statistics.open()
        statistics.count(entry())
        assert statistics.today().hits == 1
        assert NAME in caplog.text


class TestBounds:
    def test_the_busiest_stay_when_many_names_come(self) -> None:
        """Of any number of names as many are kept as may be, and the busy one is among them."""
        busiest, registry = Busiest(100), RegistryName.parse("quay.io")
        for number in range(1000):
            busiest.count(registry, f"seldom-{number}", 1, hit=False)
            busiest.count(registry, "busy", 10, hit=True)
        (_, name, reads), *rest = busiest.top(1000)
        assert (name, reads.requests, reads.hits, reads.served_bytes) == ("busy", 1000, 1000, 10_000)
        assert len(rest) < 100

    async def test_errors_of_one_kind_are_one_line(self, statistics: Statistics) -> None:
        """With the last reason and a number; the newest come first, and the oldest go."""
        for number in range(MOST_ERRORS + 5):
            statistics.count(entry(path=f"/v2/app-{number}/blobs/{DIGEST}", answered=502, error="first"))
        for _ in range(3):
            statistics.count(entry(path=f"/v2/app-20/blobs/{DIGEST}", answered=502, error="x" * 10_000))
        troubles = statistics.troubles()
        assert len(troubles) == MOST_ERRORS
        assert (troubles[0].image, troubles[0].count) == ("app-20", 4)
        assert len(troubles[0].reason) < 500
        assert statistics.today().errors == MOST_ERRORS + 8

    async def test_a_quota_is_sampled_every_half_a_minute(
        self, statistics: Statistics, core: Core, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last sample is always the newest; a thousand looks are sixty samples."""
        known = statistics_of_quota(monkeypatch, core)
        for second in range(3000):
            known(Quota(5000 - second, 5000, 21600.0, 9e9, float(second)))
            statistics.look()
        seen = statistics.quota_seen("https://quay.io", "anonymous clients")
        assert len(seen) == QUOTA_SAMPLES
        assert seen[-1] == (2999.0, 2001)
        assert all(25 <= after.seen_at_s - before.seen_at_s <= 31 for before, after in pairwise(seen[:-1]))


def statistics_of_quota(monkeypatch: pytest.MonkeyPatch, core: Core) -> Callable[[Quota], None]:
    """Return what says which quota is known."""
    known: list[Quota] = []
    told = lambda: (KnownQuota("https://quay.io", "anonymous clients", known[-1]),)  # noqa: E731
    monkeypatch.setattr(core.upstream.quotas, "quotas", told)
    return known.append


class TestDownloads:
    def test_who_waits(self) -> None:
        """Two requests of one client are two; who has the answer waits no more."""
        clock = Clock(0.0)
        downloads = Downloads(clock)
        asked = [entry(CacheStatus.MISS).exchange for _ in range(2)]
        for exchange in asked:
            assert exchange is not None
            downloads.joined(DIGEST, exchange, "team/app", "192.0.2.7")
        (download,) = downloads.all()
        assert len(download.waiting) == 2
        assert asked[0] is not None
        downloads.answered(asked[0])
        assert len(download.waiting) == 1
        downloads.look(())
        assert downloads.all() == []

    def test_the_speed_is_that_of_the_last_seconds(self) -> None:
        """A download that was quick and is slow now is slow."""
        clock = Clock(0.0)
        downloads = Downloads(clock)
        exchange = entry(CacheStatus.MISS).exchange
        assert exchange is not None
        downloads.joined(DIGEST, exchange, "team/app", "192.0.2.7")
        ingest = SimpleIngest()
        for second in range(20):
            clock.now_s = float(second)
            ingest.arrived_bytes += 1000 if second < 10 else 10
            downloads.look([ingest])  # type: ignore[list-item]
        assert downloads.all()[0].bytes_per_s == 10


@dataclass
class SimpleIngest:
    """What is looked at."""

    digest: Digest = DIGEST
    size_bytes: int | None = None
    arrived_bytes: int = 0


async def test_without_names_the_document_names_nothing(statistics: Statistics, core: Core) -> None:
    """No image, no account, no client, no reason and no digest, wherever they may stand; registries it does."""
    secret = entry(CacheStatus.MISS, path=f"/v2/secret/app/blobs/{DIGEST}", user_agent="secret-agent")
    assert secret.exchange is not None
    core.downloads.joined(DIGEST, secret.exchange, "secret/app", "192.0.2.7")
    statistics.count(secret)
    core.downloads.joined(DIGEST, secret.exchange, "secret/app", "192.0.2.7")  # another one waits
    statistics.count(
        entry(
            path=f"/v2/secret/app/blobs/{DIGEST}", answered=502, error="secret/app is away", user_agent="secret-agent"
        )
    )
    disk = DiskState(10**9, NOON_S - 60, Usage())
    shown, hidden = (
        str(document(core, statistics, disk, core.downloads.shown(), names=names)) for names in (True, False)
    )
    for word in ("secret", "192.0.2.7", str(DIGEST)):
        assert word in shown
        assert word not in hidden
    assert "quay.io" in hidden
