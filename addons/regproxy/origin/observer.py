"""Lets someone watch our own requests to upstreams, each hop of a redirect for itself.

What is told stands at the request's head and the answer's head; a body that breaks later is told by those who read it.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp

logger = logging.getLogger(__name__)

type Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TracedAnswer:
    """The head of an upstream's answer."""

    status: int
    reason: str
    fields: Fields = field(repr=False)
    """May hold secrets: `Location` with a signature, `Set-Cookie`."""
    peer: tuple[str, int] | None
    """The address that answered; None when the connection has been given back already."""
    at_s: float
    """Unix time."""


@dataclass(slots=True)
class TracedRequest:
    """One request of ours, and what became of it so far."""

    method: str
    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    """Path and query; the query may hold a signature."""
    fields: Fields = field(repr=False)
    """May hold `Authorization`."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at_s: float = field(default_factory=time.time)
    """Unix time of the start."""
    answer: TracedAnswer | None = None
    error: str | None = None
    """Why there was no answer; the text may hold the URL."""


type Observer = Callable[[TracedRequest], None]
"""Is told of a request when it starts, and of the same object when it has been answered or has failed."""


def trace_config(observer: Observer) -> aiohttp.TraceConfig:
    """Return what makes an aiohttp session tell `observer`; an error of the observer breaks no request."""
    config = aiohttp.TraceConfig()

    async def started(
        _session: aiohttp.ClientSession, trace: SimpleNamespace, event: aiohttp.TraceRequestStartParams
    ) -> None:
        url = event.url
        trace.request = TracedRequest(
            event.method, url.scheme, url.host or "", url.port or 0, url.raw_path_qs, _fields(event.headers.items())
        )
        _tell(observer, trace.request)

    async def ended(
        _session: aiohttp.ClientSession, trace: SimpleNamespace, event: aiohttp.TraceRequestEndParams
    ) -> None:
        response = event.response
        trace.request.answer = TracedAnswer(
            response.status, response.reason or "", _fields(response.headers.items()), _peer(response), time.time()
        )
        _tell(observer, trace.request)

    async def failed(
        _session: aiohttp.ClientSession, trace: SimpleNamespace, event: aiohttp.TraceRequestExceptionParams
    ) -> None:
        trace.request.error = f"{type(event.exception).__name__}: {event.exception}"
        _tell(observer, trace.request)

    config.on_request_start.append(started)
    config.on_request_end.append(ended)
    config.on_request_exception.append(failed)
    return config


def _tell(observer: Observer, request: TracedRequest) -> None:
    try:
        observer(request)
    except Exception:  # whatever it is, the pull goes on
        logger.exception("a request to an upstream cannot be shown")


def _fields(items: Iterable[tuple[str, str]]) -> Fields:
    return tuple((str(name), str(value)) for name, value in items)


def _peer(response: aiohttp.ClientResponse) -> tuple[str, int] | None:
    transport = response.connection.transport if response.connection is not None else None
    peer = transport.get_extra_info("peername") if transport is not None else None
    return (str(peer[0]), int(peer[1])) if peer else None
