"""Outage readiness: for each image that clients pulled lately, whether it would come from the cache alone."""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.oci.references import platforms
from regproxy.policy.readiness import State, Summary, Verdict, judge
from regproxy.policy.targets import Target
from regproxy.stack.admin.images import Stock, age_s, take_stock
from regproxy.stack.admin.queries import COUNT, NUMBER, TEXT, Json, Schema, array, nullable, record
from regproxy.stack.core import Core
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.pulls import Pulled

logger = logging.getLogger(__name__)

FIRST_LOOK_S = 60.0
LOOK_INTERVAL_S = 600.0
"""Each look reads the manifests that are in use."""

_STATE: Schema = {"type": "string", "enum": [state.value for state in State]}

READINESS: Schema = record(
    window_s=NUMBER,
    ready=COUNT,
    images=array(
        record(
            image=TEXT,
            state=_STATE,
            digest=nullable(TEXT),
            platforms=array(TEXT),
            missing=array(TEXT),
            missing_known=COUNT,
            pulled_age_s=nullable(NUMBER),
        )
    ),
)
"""`platforms`: of an index, those that clients need; `missing_known`: how much is known to be missing, which may name
more."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One image that was pulled, and how it would do."""

    pulled: Pulled
    verdict: Verdict


async def judge_all(store: Store, window_s: float, target: Target | None = None) -> list[Judged]:
    """Judge what was pulled within so many seconds, the last pulled first. Raises StoreError."""
    oldest_s = time.time() - window_s
    pulls = [pulled for pulled in await store.inventory.pulls() if pulled.at_s >= oldest_s]
    if target is not None:
        pulls = [pulled for pulled in pulls if target.selects(pulled.registry, pulled.name, pulled.reference)]
    stock = await take_stock(store, [_target_of(pulled) for pulled in pulls])
    by_digest: dict[tuple[str, str], set[Digest]] = defaultdict(set)
    for pulled in pulls:
        if pulled.digest is not None:
            by_digest[pulled.registry, pulled.name].add(pulled.digest)
    meanings, judged = _meanings(stock), []
    for pulled in pulls:
        asked_for = by_digest[pulled.registry, pulled.name]
        verdict = judge(_candidates(pulled, meanings), asked_for, stock.graph, stock.contents.keys())
        judged.append(Judged(pulled, verdict))
    return sorted(_without_parts(judged, stock), key=lambda each: each.pulled.at_s, reverse=True)


def _target_of(pulled: Pulled) -> Target:
    return Target.parse(pulled.text)


def _meanings(stock: Stock) -> dict[tuple[str, str, str], list[Digest]]:
    """Return what each tag means, the newest first, and then what it meant before."""
    found: dict[tuple[str, str, str], list[Digest]] = defaultdict(list)
    tags = sorted(stock.tags, key=lambda tag: tag.record.checked_at_s, reverse=True)
    for tag in tags:
        found[tag.registry, tag.name, tag.tag].append(tag.record.descriptor.digest)
    for tag in tags:
        if tag.record.previous is not None:
            found[tag.registry, tag.name, tag.tag].append(tag.record.previous.digest)
    return found


def _candidates(pulled: Pulled, meanings: dict[tuple[str, str, str], list[Digest]]) -> list[Digest]:
    if pulled.digest is not None:
        return [pulled.digest]
    return list(dict.fromkeys(meanings.get((pulled.registry, pulled.name, pulled.reference), ())))


def _without_parts(judged: list[Judged], stock: Stock) -> list[Judged]:
    """Leave out what was pulled by digest because a tag or an index led there."""
    led_to: dict[tuple[str, str], set[Digest]] = defaultdict(set)
    for each in judged:
        digest = each.verdict.digest
        if digest is None:
            continue
        place = led_to[each.pulled.registry, each.pulled.name]
        if each.pulled.digest is None:
            place.add(digest)
        named = stock.graph.get(digest)
        place.update(named.manifests if named else ())
    return [
        each
        for each in judged
        if each.pulled.digest is None or each.pulled.digest not in led_to[each.pulled.registry, each.pulled.name]
    ]


async def describe_readiness(store: Store, window_s: float, target: Target | None) -> Json:
    """Describe how images would do."""
    now_s = time.time()
    judged = await judge_all(store, window_s, target)
    return {
        "window_s": window_s,
        "ready": sum(each.verdict.state is not State.INCOMPLETE for each in judged),
        "images": [await _described(store, each, now_s) for each in judged],
    }


async def _described(store: Store, judged: Judged, now_s: float) -> Json:
    verdict = judged.verdict
    named: dict[Digest, str] = {}
    if verdict.platforms and verdict.digest is not None:
        index = await store.manifest(verdict.digest)
        named = {} if index is None else platforms(index.body)
    return {
        "image": judged.pulled.text,
        "state": verdict.state.value,
        "digest": None if verdict.digest is None else str(verdict.digest),
        "platforms": [named[digest] for digest in verdict.platforms if named.get(digest)],
        "missing": [*sorted(map(str, verdict.missing))],
        "missing_known": len(verdict.missing),
        "pulled_age_s": age_s(judged.pulled.at_s, now_s),
    }


async def keep_looking(core: Core) -> None:
    """Look again and again, for the metrics and the dashboard; one worker does."""
    await core.desk.until_here()
    await asyncio.sleep(FIRST_LOOK_S)
    while core.store.is_open:
        try:
            await look(core)
        except StoreError as error:
            core.store_failed(error)
        await asyncio.sleep(LOOK_INTERVAL_S)


async def look(core: Core) -> None:
    """Look, and say once of each image that would fail from now on. Raises StoreError."""
    judged = await judge_all(core.store, core.settings.readiness_window_s)
    wanting = [each.pulled for each in judged if each.verdict.state is State.INCOMPLETE]
    before = set() if core.readiness is None else set(core.readiness.wanting)
    core.readiness = Summary(
        time.time(),
        dict.fromkeys(State, 0) | Counter(each.verdict.state for each in judged),
        tuple((pulled.registry, _in_repository(pulled)) for pulled in wanting),
    )
    for pulled in wanting:
        if (pulled.registry, _in_repository(pulled)) not in before:
            logger.warning("%s would fail in an outage: not all of it is stored any more", pulled.text)


def _in_repository(pulled: Pulled) -> str:
    return pulled.text.removeprefix(f"{pulled.registry}/")
