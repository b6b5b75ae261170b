"""What is measured and what must be reached: the rows, their figures, and the bar for each.

A bar is a goal of this benchmark, read from the medians of one run; no test depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import measures
from bench.measures import Figures, Trial
from bench.stage import Stage
from bench.upstream import Door


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A goal for our figure, or for our figure divided by a peer's."""

    limit: float
    at_least: bool
    against: str | None = None
    """The peer whose figure ours is divided by; None: the figure itself."""
    aim: float | None = None

    @property
    def text(self) -> str:
        """The bar in words."""
        relation = ">=" if self.at_least else "<="
        aim = "" if self.aim is None else f", aim {self.aim:g}"
        return f"{relation} {self.limit:g}{'' if self.against is None else f' x {self.against}'}{aim}"

    def is_reached(self, figure: float, goal: float | None = None) -> bool:
        """Whether a ratio (or the figure itself) is good enough for the limit, or for another goal."""
        wanted = self.limit if goal is None else goal
        return figure >= wanted if self.at_least else figure <= wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a row."""

    name: str
    title: str
    unit: str
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One load, run against every peer in turn."""

    name: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Trial], Figures]
    heats: Callable[[Stage], tuple[tuple[Door, str], ...]] = lambda _stage: ()
    """What must be in every cache before the row."""
    needs_proxy: bool = False
    """True: there is nothing to measure without a proxy."""
    once: bool = False
    """True: a second time would start from another state."""


def _large_blob(door: Door) -> Callable[[Stage], tuple[tuple[Door, str], ...]]:
    return lambda stage: ((door, stage.content.large_blob),)


def _both_blobs(stage: Stage) -> tuple[tuple[Door, str], ...]:
    return (Door.FAST, stage.content.large_blob), (Door.FAST, stage.content.slowly_read_blob)


def _manifest(stage: Stage) -> tuple[tuple[Door, str], ...]:
    return ((Door.FAST, stage.content.manifest),)


def _image(stage: Stage, name: str) -> tuple[tuple[Door, str], ...]:
    content = stage.content
    image = content.small_image if name == content.small_name else content.large_image
    return tuple((Door.FAST, f"/v2/{name}/blobs/{digest}") for digest in image.blobs)


def _cpu(load: str, *bars: Bar) -> Metric:
    return Metric(name="cpu", title=f"CPU of the proxy, {load}", unit="s/GiB", bars=bars)


def _pull(name: str, title: str, *, times: int) -> Row:
    return Row(
        name=f"pull-{name}",
        metrics=(Metric(name="time", title=title, unit="s", bars=(_AT_MOST_1_1_NGINX,)),),
        measure=lambda trial: measures.skopeo_pull(trial, f"bench/{name}", times),
        heats=lambda stage: _image(stage, f"bench/{name}"),
    )


_SPEED_BAR = Bar(limit=0.9, aim=1.1, at_least=True, against="nginx")
_HALF_NGINX = Bar(limit=0.5, at_least=False, against="nginx")
_AT_MOST_1_1_NGINX = Bar(limit=1.1, at_least=False, against="nginx")

ROWS: tuple[Row, ...] = (
    Row(
        name="blob-tls",
        metrics=(
            Metric(name="speed", title="Large blob, hit, TLS, one client", unit="MB/s", bars=(_SPEED_BAR,)),
            _cpu("one TLS client", Bar(limit=1.3, at_least=False, against="nginx")),
        ),
        measure=partial(measures.blob, door=Door.FAST, clients=1),
        heats=_large_blob(Door.FAST),
    ),
    Row(
        name="blob-tls-4",
        metrics=(
            Metric(name="speed", title="Same, four clients at once, total", unit="MB/s", bars=(_SPEED_BAR,)),
            _cpu("four TLS clients"),
        ),
        measure=lambda trial: measures.blob(trial, Door.FAST, trial.stage.sizes.streams),
        heats=_large_blob(Door.FAST),
    ),
    Row(
        name="blob-plain",
        metrics=(
            Metric(
                name="speed",
                title="Large blob, hit, plain HTTP, one client",
                unit="MB/s",
                bars=(Bar(limit=0.9, at_least=True, against="nginx"),),
            ),
            _cpu("plain HTTP"),
        ),
        measure=partial(measures.blob, door=Door.PLAIN, clients=1),
        heats=_large_blob(Door.PLAIN),
    ),
    Row(
        name="manifest-keep-alive",
        metrics=(
            Metric(
                name="rate",
                title="Manifest by tag, hit, keep-alive, 8 connections",
                unit="requests/s",
                bars=(
                    Bar(limit=3, at_least=True, against="mitmdump"),
                    Bar(limit=0.1, aim=0.3, at_least=True, against="nginx"),
                ),
            ),
        ),
        measure=partial(measures.requests, keep_alive=True),
        heats=_manifest,
    ),
    Row(
        name="manifest-new-connections",
        metrics=(
            Metric(
                name="rate",
                title="Manifest by tag, hit, a new connection each time",
                unit="requests/s",
                bars=(Bar(limit=0.2, aim=0.4, at_least=True, against="nginx"),),
            ),
        ),
        measure=partial(measures.requests, keep_alive=False),
        heats=_manifest,
    ),
    Row(
        name="cold",
        metrics=(
            Metric(name="time", title="Cold blob, upstream of 40 MB/s a connection", unit="s", bars=(_HALF_NGINX,)),
        ),
        measure=measures.cold,
    ),
    Row(
        name="followers",
        metrics=(
            Metric(name="time", title="Eight clients, one cold blob, last byte", unit="s", bars=(_HALF_NGINX,)),
            Metric(
                name="first-byte",
                title="First body byte of the slowest of them",
                unit="s",
                bars=(Bar(limit=1, at_least=False),),
            ),
            Metric(name="fetches", title="Requests for it that reached the upstream", unit=""),
        ),
        measure=measures.followers,
    ),
    _pull("small", "Warm pull with skopeo, 5 x 0.3 MiB", times=5),
    _pull("large", "Warm pull with skopeo, 4 x 64 MiB", times=1),
    Row(
        name="slow-clients",
        metrics=(
            Metric(
                name="share",
                title="Fast client's speed beside 200 slow ones, share of its speed alone",
                unit="",
                bars=(Bar(limit=0.7, at_least=True),),
            ),
            Metric(name="slow", title="What each slow client got (it wants 200)", unit="kB/s"),
            Metric(
                name="threads", title="Threads of the proxy meanwhile", unit="", bars=(Bar(limit=64, at_least=False),)
            ),
        ),
        measure=measures.beside_slow_clients,
        heats=_both_blobs,
    ),
    Row(
        name="memory",
        metrics=(
            Metric(
                name="highest",
                title="Memory (RSS) after all rows, highest",
                unit="MiB",
                bars=(Bar(limit=150, at_least=False),),
            ),
            Metric(name="rss", title="Same, median", unit="MiB"),
            Metric(
                name="growth", title="Its growth over 1,000 pulls", unit="MiB", bars=(Bar(limit=2, at_least=False),)
            ),
        ),
        measure=measures.memory,
        needs_proxy=True,
        once=True,
    ),
)
