"""What the stack knows of one request to a registry, and how it was answered."""

import itertools
import secrets
import weakref
from dataclasses import dataclass, field
from enum import StrEnum

from mitmproxy import http

from regproxy.oci.endpoint import Endpoint
from regproxy.oci.names import Registry
from regproxy.origin.trace import Trace
from regproxy.policy.credentials import Credential
from regproxy.policy.drills import Drill
from regproxy.policy.identities import NOBODY, Identity
from regproxy.policy.openers import OpenedBy
from regproxy.policy.tiers import RequestClass

_RUN = secrets.token_hex(4)
"""Tells one run of the proxy from the next."""

_numbers = itertools.count(1)


class CacheStatus(StrEnum):
    """nginx's `$upstream_cache_status`, with nginx's meanings.

    `UPDATING` is left out: it needs `proxy_cache_use_stale updating`, which the predecessor did not have either. Who
    asks for a tag that is being revalidated gets the new answer.
    """

    NONE = ""
    """The cache has no part in this request."""
    HIT = "HIT"
    MISS = "MISS"
    EXPIRED = "EXPIRED"
    """The time was up and the upstream gave a new answer."""
    REVALIDATED = "REVALIDATED"
    """The time was up and the upstream confirmed the stored answer."""
    STALE = "STALE"
    """The time was up, the upstream gave no answer, and the stored one was served."""
    BYPASS = "BYPASS"
    """The cache was not asked, on purpose."""


@dataclass
class Exchange:
    """One request to a registry, through either door, and its answer as it comes about."""

    registry: Registry
    scheme: str
    """`https`, or `http` for a registry that the operator listed so."""
    endpoint: Endpoint
    request_class: RequestClass
    authorization: str | None = field(default=None, repr=False)
    """What is sent upstream: the client's own, or the operator's."""
    client: Identity = NOBODY
    """Who asks, by what the client itself sent."""
    has_unseen_token: bool = False
    """Whether the client's token says itself that it is nobody's, and was not seen to be given."""
    client_has_credentials: bool = False
    """Whether the authorization is the client's own."""
    may_fall_back: bool = False
    """Whether the proxy's login may follow when the client's own is refused."""
    credential: Credential | None = None
    """The operator's, if the authorization is its password."""
    cache_status: CacheStatus = CacheStatus.NONE
    trace: Trace | None = field(default=None, repr=False)
    """What was asked of the registry for this request, by our own client; None when nothing was."""
    answered_at_s: float | None = None
    """When the answer's head went out, Unix time."""
    drill: Drill | None = None
    """By which the registry is away for this client."""
    namespace: str | None = None
    """What a client of the mirror door calls the registry; None when the request came by the proxy door."""
    request_id: str = field(default_factory=lambda: f"{_RUN}-{next(_numbers):x}")
    """Names this request in the answer, in the log and for `why`; of no use to guess others by."""
    error: str | None = None
    """Why the answer is not the one hoped for, in words."""


_exchanges: weakref.WeakKeyDictionary[http.HTTPFlow, Exchange] = weakref.WeakKeyDictionary()


def trace_of(exchange: Exchange) -> Trace:
    """Return where the exchange's requests to the registry are written down."""
    if exchange.trace is None:
        exchange.trace = Trace()
    return exchange.trace


def opened_by(exchange: Exchange) -> OpenedBy:
    """Return whose login is sent upstream with the client's own Authorization; nobody's if there is none."""
    # A token that only says itself that it is nobody's may be somebody's: what it opens is not public.
    is_somebodys = not exchange.client.is_nobody or exchange.has_unseen_token
    return OpenedBy.CLIENT if exchange.client_has_credentials and is_somebodys else OpenedBy.NOBODY


def begin(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Remember what is known of a flow's request."""
    _exchanges[flow] = exchange


def exchange_of(flow: http.HTTPFlow) -> Exchange | None:
    """Return what is known of a flow; None when it is not a request to a registry."""
    return _exchanges.get(flow)


def unanswered(flow: http.HTTPFlow) -> Exchange | None:
    """Return the exchange of a live flow that nobody has answered yet, else None."""
    if flow.response is not None or flow.error is not None or not flow.live:
        return None
    return _exchanges.get(flow)
