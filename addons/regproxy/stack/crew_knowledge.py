"""What one worker learns of registries and clients, the others know soon: each tells, and hears, by the crew.

Facts only, that spare a question or keep one from being asked: none of them lets a client read anything (who may read
what is in the index, `store.crew.access`). No secret is told: tokens and logins go by hashes with a key that the
workers of one start have in common.
"""

import base64
import json
import time
from dataclasses import asdict
from typing import Any

from mitmproxy.http import Headers

from regproxy.engine.crew import Crew
from regproxy.oci.names import Registry
from regproxy.origin.callers import Caller
from regproxy.origin.errors import Answer
from regproxy.policy.breaker import CLOSED, Circuit, Closed, HalfOpen, Open, Outage
from regproxy.policy.identities import Identity
from regproxy.policy.openers import OpenedBy
from regproxy.policy.quota import Quota
from regproxy.stack.accepted_logins import ACCEPTED_S
from regproxy.stack.core import Core
from regproxy.stack.not_found import Absent
from regproxy.store.crew.stamps import NOT_FOUND, Stamps

_OUTAGE_S = 86400.0
_QUOTA_S = 6 * 3600.0
_TOKEN_S = 3600.0


class CrewKnowledge:
    """Both ends of it, for one worker."""

    def __init__(self, core: Core, crew: Crew, stamps: Stamps) -> None:
        self._core, self._crew, self._stamps = core, crew, stamps

    def connect(self) -> None:
        """Begin to tell and to hear; once the core is started."""
        secret = self._stamps.secret()
        self._connect_upstreams(secret)
        self._connect_clients(secret)
        self._connect_not_found()

    def _connect_upstreams(self, secret: bytes) -> None:
        crew, upstream = self._crew, self._core.upstream
        upstream.callers.share_key(secret)
        upstream.circuits.on_change = self._tell_circuit
        crew.on_fact("circuit", lambda origin, told: upstream.circuits.hear(origin, _heard_circuit(told)))
        crew.on_gone(upstream.circuits.other_gone)
        upstream.quotas.on_quota = self._tell_quota
        crew.on_fact("quota", self._hear_quota)
        upstream.quotas.on_rest = self._tell_rest
        crew.on_fact("rest", self._hear_rest)
        upstream.logins.share_key(secret)
        upstream.logins.on_rest = self._tell_refused_login
        crew.on_fact("refused login", upstream.logins.hear_rest)

    def _connect_clients(self, secret: bytes) -> None:
        crew, identities = self._crew, self._core.identities
        identities.share_mask(secret)
        identities.on_given = lambda masked, owner: crew.tell("token", masked.hex(), owner.key, _TOKEN_S)
        crew.on_fact("token", lambda masked, owner: identities.hear_given(bytes.fromhex(masked), Identity(owner)))
        self._core.accepted_logins.on_change = self._tell_login
        crew.on_fact("login", self._hear_login)

    def _connect_not_found(self) -> None:
        not_found, stamps = self._core.not_found, self._stamps
        not_found.written_elsewhere = lambda: stamps.current(NOT_FOUND)
        not_found.on_written = lambda: stamps.change(NOT_FOUND)
        not_found.on_kept = self._tell_not_found
        self._crew.on_fact("not found", self._hear_not_found)

    # Upstreams.

    def _tell_circuit(self, origin: str, circuit: Circuit) -> None:
        # A probe is not told to workers that are started later: nobody would tell them if its worker had died.
        self._crew.tell("circuit", origin, _told_circuit(circuit), 0.0 if isinstance(circuit, HalfOpen) else _OUTAGE_S)

    def _tell_quota(self, registry: str, caller: Caller, quota: Quota) -> None:
        self._crew.tell("quota", json.dumps([registry, caller.name, caller.key]), asdict(quota), _QUOTA_S)

    def _hear_quota(self, key: str, told: dict[str, Any]) -> None:
        registry, name, caller_key = json.loads(key)
        self._core.upstream.quotas.hear_quota(registry, Caller(name, caller_key), Quota(**told))

    def _tell_rest(self, registry: str, caller: Caller, path: str, until_s: float, refusals: int) -> None:
        key = json.dumps([registry, caller.name, caller.key, path])
        self._crew.tell("rest", key, [until_s, refusals], until_s - time.monotonic())

    def _hear_rest(self, key: str, told: list[Any]) -> None:
        registry, name, caller_key, path = json.loads(key)
        self._core.upstream.quotas.hear_rest(registry, Caller(name, caller_key), path, *told)

    def _tell_refused_login(self, fingerprint: str, until_s: float) -> None:
        self._crew.tell("refused login", fingerprint, until_s, until_s - time.monotonic())

    # Clients.

    def _tell_login(self, host: Registry, client: Identity, at_s: float | None) -> None:
        self._crew.tell("login", json.dumps([str(host), client.key]), at_s, ACCEPTED_S)

    def _hear_login(self, key: str, at_s: float | None) -> None:
        host, client = json.loads(key)
        self._core.accepted_logins.hear(Registry.parse(host), Identity(client), at_s)

    # What registries do not have.

    def _tell_not_found(self, absent: Absent, answer: Answer, method: str, until_s: float) -> None:
        key = [str(absent.registry), absent.name, absent.reference, absent.accepted, absent.fingerprint]
        body = base64.b64encode(answer.body).decode()
        answered = [answer.status, list(answer.headers.items()), body, answer.origin, answer.opened_by.value]
        told = [answered, method, until_s, self._stamps.current(NOT_FOUND)]
        self._crew.tell("not found", json.dumps(key), told, until_s - time.monotonic())

    def _hear_not_found(self, key: str, told: list[Any]) -> None:
        registry, name, reference, accepted, fingerprint = json.loads(key)
        (status, fields, body, origin, opened_by), method, until_s, written_before = told
        headers = Headers([(field.encode(), value.encode("utf-8", "surrogateescape")) for field, value in fields])
        answer = Answer(status, headers, base64.b64decode(body), origin, OpenedBy(opened_by))
        absent = Absent(Registry.parse(registry), name, reference, tuple(accepted), fingerprint)
        self._core.not_found.hear(absent, answer, method, until_s, written_before)


def _told_circuit(circuit: Circuit) -> dict[str, Any] | None:
    match circuit:
        case Closed(0):
            return None
        case Closed(errors_in_a_row):
            return {"closed": errors_in_a_row}
        case Open(outage):
            return {"open": asdict(outage)}
        case HalfOpen(outage):
            return {"half open": asdict(outage)}


def _heard_circuit(told: dict[str, Any] | None) -> Circuit:
    match told:
        case {"closed": int(errors_in_a_row)}:
            return Closed(errors_in_a_row)
        case {"open": outage}:
            return Open(Outage(**outage))
        case {"half open": outage}:
            return HalfOpen(Outage(**outage))
        case _:
            return CLOSED
