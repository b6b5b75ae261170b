"""Drills: what clients would get if a registry were away, tried on those that are chosen."""

import time
from dataclasses import replace
from typing import Any

from regproxy.oci.names import HTTPS_PORT, Registry
from regproxy.policy.drills import LONGEST_DRILL_S, Drill, Failure
from regproxy.policy.image_rules import parse_network
from regproxy.policy.mirror import HUB, HUB_NAMES
from regproxy.policy.redirects import Url
from regproxy.policy.targets import Target
from regproxy.stack.admin.queries import COUNT, FLAG, NUMBER, TEXT, Json, RequestError, Schema, array, nullable, record
from regproxy.stack.core import Core

DRILL: Schema = record(
    registry=TEXT,
    clients=array(TEXT),
    under_way=FLAG,
    remaining_s=NUMBER,
    served=COUNT,
    failed=COUNT,
    failures=array(record(what=TEXT, client_ip=TEXT, status=nullable(COUNT), times=COUNT)),
)

DRILLS: Schema = record(drills=array(DRILL))

SHORTEST_DRILL_S = 1.0

_TOPIC = "drills"


async def begin_drill(core: Core, target: Target, clients: str, for_s: float) -> Json:
    """Begin one. Raises RequestError."""
    if target.registry is None or target.name is not None:
        raise RequestError(400, "a drill is for a registry: docker.io, quay.io")
    if not SHORTEST_DRILL_S <= for_s <= LONGEST_DRILL_S:
        raise RequestError(
            400, f"duration={for_s:g} s: a drill takes from one second to {LONGEST_DRILL_S / 3600:g} hours"
        )
    try:
        networks = tuple(parse_network(text) for text in clients.replace(",", " ").split())
    except ValueError as error:
        raise RequestError(400, f"clients: {error}") from None
    if not networks:
        raise RequestError(400, "clients: say for whom: addresses or networks such as 10.1.0.0/16")
    registry = Registry.parse(target.registry)
    now_s = time.time()
    core.drills.begin(Drill(registry, _hosts(core, registry), networks, now_s + for_s, now_s))
    return await list_drills(core)


async def end_drill(core: Core, target: Target) -> Json:
    """End one. Raises RequestError."""
    if target.registry is None or core.drills.end(Registry.parse(target.registry)) is None:
        raise RequestError(404, f"there is no drill of {target.registry}")
    return await list_drills(core)


async def list_drills(core: Core) -> Json:
    """Describe all of them, the last one first; what the clients of other workers got counts, too."""
    told = await core.desk.others(_TOPIC)
    return {"drills": [_described(core, _with_others(drill, told)) for drill in core.drills.all()]}


def answer_others(core: Core) -> None:
    """Have other workers' questions answered about what came of drills here."""

    async def outcomes(_: object) -> list[Json]:
        return [
            [
                str(drill.registry),
                drill.began_s,
                drill.served,
                drill.failed,
                [[each.what, each.client_ip, each.status, times] for each, times in drill.failures.items()],
            ]
            for drill in core.drills.all()
        ]

    core.desk.on_question(_TOPIC, outcomes)


def _with_others(drill: Drill, told: list[Any]) -> Drill:
    """Return a drill with what came of it at other workers."""
    whole = replace(drill, failures=drill.failures.copy())
    for registry, began_s, served, failed, failures in (each for answer in told for each in answer):
        if (registry, began_s) == (str(drill.registry), drill.began_s):
            whole.served, whole.failed = whole.served + served, whole.failed + failed
            for what, client_ip, status, times in failures:
                failure = Failure(what, client_ip, status)
                whole.failures[failure] = whole.failures.get(failure, 0) + times
    return whole


def _hosts(core: Core, registry: Registry) -> frozenset[Registry]:
    """Return a registry by all its names, and its token server."""
    hosts = {registry}
    if registry.host in HUB_NAMES:
        hosts |= {replace(HUB, host=name) for name in (*HUB_NAMES, "auth.docker.io")}
    realm = core.upstream.logins.realm_of(Url("https", registry.host, registry.port or HTTPS_PORT, "/v2/"))
    if realm is not None:
        hosts.add(Registry(realm.url.host, realm.url.port))
    return frozenset(hosts)


def _described(core: Core, drill: Drill) -> Json:
    under_way = core.drills.is_under_way(drill)
    return {
        "registry": str(drill.registry),
        "clients": [*map(str, drill.clients)],
        "under_way": under_way,
        "remaining_s": round(max(0.0, drill.until_s - time.time()), 1) if under_way else 0.0,
        "served": drill.served,
        "failed": drill.failed,
        "failures": [
            {"what": failure.what, "client_ip": failure.client_ip, "status": failure.status, "times": times}
            for failure, times in reversed(drill.failures.items())
        ],
    }
