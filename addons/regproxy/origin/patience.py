"""How long a request may wait for its upstream: not long, when something stored can be the answer instead."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from regproxy.policy.breaker import Need

CONNECT_BUDGET_S = 2.0
"""How long a client that can be answered without the upstream waits for a connection to it: name, TCP, proxy, TLS."""

PROBE_LIMIT_S = 10.0
"""How long a host that gave no answer is given for a connection; a probe that nobody waits for, for the answer too."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What the requests of a task depend on."""

    need: Need = Need.REQUIRED
    answer_by_s: float | None = None
    """On the loop's clock: whoever asks gives up then, and the upstream is one that gave no answer."""


patience: ContextVar[Patience] = ContextVar("patience", default=Patience())  # noqa: B039 - it is frozen


@contextlib.asynccontextmanager
async def within(limit_s: float, need: Need) -> AsyncIterator[None]:
    """Give what is asked in this block so many seconds in all. Raises TimeoutError."""
    async with asyncio.timeout(limit_s) as limit:
        outer = patience.set(Patience(need, limit.when()))
        try:
            yield
        finally:
            patience.reset(outer)


def limit_s(most_s: float) -> float:
    """Return how long a part of what a task asks may take: at most so long, and not longer than the whole."""
    answer_by_s = patience.get().answer_by_s
    return most_s if answer_by_s is None else min(most_s, max(0.0, answer_by_s - asyncio.get_running_loop().time()))


def connect_limit_s(is_probe: bool) -> float | None:
    """Return how long a connection may take to come about; None for the time that the settings give it.

    A connection that is open already has shown nothing: there the answer has to come in this time.
    """
    if patience.get().need is Need.OPTIONAL:
        return CONNECT_BUDGET_S
    return PROBE_LIMIT_S if is_probe else None


def connect_trace_config(head_limit_s: float) -> aiohttp.TraceConfig:
    """Return what ends the limit of a request (its `trace_request_ctx`) when its connection has come about.

    From the moment when the request has been sent its answer's head has `head_limit_s` to arrive in: a read timeout
    alone is begun anew by each byte of it, and by each interim answer.
    """
    config = aiohttp.TraceConfig()

    async def connected(
        _session: aiohttp.ClientSession, trace: SimpleNamespace, _event: aiohttp.TraceConnectionCreateEndParams
    ) -> None:
        limit: asyncio.Timeout = trace.trace_request_ctx
        if not limit.expired():
            limit.reschedule(None)

    async def sent(
        _session: aiohttp.ClientSession, trace: SimpleNamespace, _event: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        limit: asyncio.Timeout = trace.trace_request_ctx
        if not limit.expired() and limit.when() is None:
            limit.reschedule(asyncio.get_running_loop().time() + head_limit_s)

    config.on_connection_create_end.append(connected)
    config.on_request_headers_sent.append(sent)
    return config
