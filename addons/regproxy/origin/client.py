"""One request to an upstream and the redirects it leads to.

aiohttp, because it moves 253 MB/s over TLS where httpx moves 128 and urllib3 146 (one 2-core machine, one
connection). Its own redirect handling, cookies, decompression and proxy variables are off: the rules are
`regproxy.policy.redirects`, and bodies must hash to their digest.
"""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yarl

from regproxy.origin.answer_bodies import is_encoded, read_body
from regproxy.origin.circuits import Admission, Circuits
from regproxy.origin.connections import QuietConnector
from regproxy.origin.errors import Answer, AnswerEncoded, UpstreamAway, UpstreamUnavailable
from regproxy.origin.failures import broken_off, unavailable
from regproxy.origin.meter import Meter, kind_of
from regproxy.origin.observer import Observer, trace_config
from regproxy.origin.patience import PROBE_LIMIT_S, connect_limit_s, connect_trace_config, patience, within
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.resolver import CheckedResolver, Lookup, system_lookup
from regproxy.origin.tls import tls_context
from regproxy.origin.trace import Attempt, Trace
from regproxy.policy.breaker import Need
from regproxy.policy.credentials import Credential
from regproxy.policy.freshness import ConnectionFailed, NotAsked, Status, stale_allowed
from regproxy.policy.interception import HostPattern, find_pattern
from regproxy.policy.mappings import UpstreamMapping, find_mapping
from regproxy.policy.openers import OpenedBy
from regproxy.policy.redirects import (
    REDIRECT_STATUSES,
    RedirectRefused,
    Url,
    headers_for_hop,
    is_refused_by_storage,
    next_hop,
    same_origin,
)
from regproxy.policy.upstream_proxy import DIRECT, ForwardProxy, ProxyPlan, proxy_authorization

READ_BUFFER_BYTES = 512 * 1024
"""What aiohttp reads ahead of the store for one transfer, at most twice."""


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """How upstreams are reached: the part of the settings that this room needs."""

    verify_tls: bool
    ca_file: Path | None
    """PEM bundle added to the system's authorities."""
    mappings: tuple[UpstreamMapping, ...]
    listed: tuple[HostPattern, ...]
    """Hosts that may be at any address: registries, credential hosts, trusted hosts."""
    ipv4_only: bool
    connect_timeout_s: float
    read_timeout_s: float
    """Longest silence of an upstream, not the length of an answer."""
    unverified: tuple[HostPattern, ...] = ()
    """Hosts whose certificates are not verified."""
    proxies: ProxyPlan = DIRECT
    lookup: Lookup = system_lookup
    offline: bool = False
    """True: nothing is asked."""


class Response(aiohttp.ClientResponse):
    """An answer, its body unread."""

    peer: tuple[str, int] | None = None
    """Who gave it: aiohttp lets the connection go with the last byte of the body."""
    opened_by: OpenedBy = OpenedBy.NOBODY
    """Whose login the registry was shown, wherever it redirected to."""
    credential: Credential | None = None
    """The operator's, if it was his."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Read the head."""
        name = None if connection.transport is None else connection.transport.get_extra_info("peername")
        if name is not None:
            self.peer = (str(name[0]), int(name[1]))
        return await super().start(connection)


class Upstream:
    """The proxy's HTTP client. `open` and `close` belong to the running event loop."""

    def __init__(self, options: UpstreamOptions, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer
        proxies = tuple(HostPattern(proxy.host, proxy.port) for proxy in options.proxies.proxies)
        self._resolver = CheckedResolver(
            options.mappings,
            options.listed + proxies,
            socket.AF_INET if options.ipv4_only else socket.AF_UNSPEC,
            options.lookup,
        )
        self._unverified_tls: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self.circuits = Circuits()
        self.meter = Meter()
        self._probes: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Make the session; no connection is opened yet. Raises OSError (ssl.SSLError is one) for a bad CA bundle."""
        if self._options.unverified:
            self._unverified_tls = tls_context(self._options.ca_file, verify=False)
        tls = tls_context(self._options.ca_file, verify=self._options.verify_tls)
        connector = QuietConnector(resolver=self._resolver, use_dns_cache=False, limit=0, ssl=tls, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._options.connect_timeout_s, sock_read=self._options.read_timeout_s
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            response_class=Response,
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            trace_configs=[
                connect_trace_config(self._options.read_timeout_s),
                *([trace_config(self._observer)] if self._observer is not None else []),
            ],
        )

    async def close(self) -> None:
        """Close every connection."""
        for probe in self._probes:
            probe.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[Response]:
        """Send a request, follow its redirects, and give the final answer with its body unread.

        Raises `UpstreamUnavailable`; a refused redirect is one, for the registry gave no usable answer.
        """
        self.refuse_early(request.url, is_drill=request.is_drill)
        attempt = (request.trace or Trace()).begin()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(attempt.end)
            response, url = await self._follow(stack, request, attempt)
            if is_refused_by_storage(response.status, url, request.url):
                # Its signature has run out, or was for another moment: the registry signs anew. Once.
                response.release()
                response, url = await self._follow(stack, request, attempt)
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                raise broken_off(url, error) from error

    async def _follow(
        self, stack: contextlib.AsyncExitStack, request: UpstreamRequest, attempt: Attempt
    ) -> tuple[Response, Url]:
        """Return the answer at the end of the redirects, and where that was."""
        url, headers, hops = request.url, headers_for_hop(request.headers, same_origin=True), 0
        while True:
            response = await self._send_one(stack, request, url, headers, attempt)
            location = response.headers.get("Location")
            if not request.follow_redirects or response.status not in REDIRECT_STATUSES or location is None:
                return response, url
            response.release()
            target = _next(url, location, hops, request)
            headers = headers_for_hop(headers, same_origin=same_origin(url, target))
            url, hops = target, hops + 1

    def refuse_early(self, url: Url, *, is_drill: bool = False) -> None:
        """Raise `UpstreamUnavailable` for what is not asked: before logging in, that is, and before a redirect."""
        if is_drill:
            raise UpstreamUnavailable(f"{url.origin} is away, in a drill", ConnectionFailed(), passing=False)
        if self._options.offline:
            raise UpstreamUnavailable(f"{url.origin} is not asked: OFFLINE is set", NotAsked(), passing=False)
        self.circuits.refuse_early(url.origin, patience.get().need)

    def admit_other(self, url: Url, *, is_drill: bool = False) -> Admission:
        """Let a request out that another client than this one sends. Raises `UpstreamUnavailable`."""
        self.refuse_early(url, is_drill=is_drill)
        return self.circuits.admit_other(url.origin)

    async def ask(self, request: UpstreamRequest, body_limit_bytes: int) -> Answer:
        """Send a request and read its whole answer. Raises `UpstreamUnavailable`, `AnswerTooLarge`."""
        try:
            return await self._ask(request, body_limit_bytes)
        except UpstreamAway as away:
            if patience.get().need is Need.OPTIONAL and self.circuits.is_due(away.origin):
                probe = asyncio.get_running_loop().create_task(self._probe(request))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)
            raise

    async def _probe(self, request: UpstreamRequest) -> None:
        """Ask what a client had to be answered without, to see whether the host is back; nobody waits for it."""
        with contextlib.suppress(UpstreamUnavailable, TimeoutError):
            async with within(PROBE_LIMIT_S, Need.PROBE), self.send(dataclasses.replace(request, trace=None)):
                pass

    async def _ask(self, request: UpstreamRequest, body_limit_bytes: int) -> Answer:
        async with self.send(request) as response:
            if response.status == 200 and request.method != "HEAD" and is_encoded(response):
                raise AnswerEncoded(str(response.url.origin()))
            body = await read_body(response, body_limit_bytes)
            self.received(request, len(body))
            return Answer(response.status, response.headers, body, str(response.url.origin()), response.opened_by)

    def received(self, request: UpstreamRequest, count_bytes: int) -> None:
        """Count bytes of a body that a request brought."""
        self.meter.received(request.url.authority, count_bytes)
        if request.trace is not None:
            request.trace.received_bytes += count_bytes

    async def is_inside(self, url: Url) -> bool:
        """Whether a host is in our own network, by its addresses."""
        return await self._resolver.is_inside(url.host, url.port)

    async def _send_one(
        self,
        stack: contextlib.AsyncExitStack,
        request: UpstreamRequest,
        url: Url,
        headers: list[tuple[str, str]],
        attempt: Attempt,
    ) -> Response:
        if self._session is None:
            raise UpstreamUnavailable("the upstream client is closed", ConnectionFailed())
        admission = await self.circuits.admit(url.origin, patience.get().need)
        hop = attempt.begin_hop(url)
        try:
            response = await self._admitted(stack, request, url, headers, admission)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = unavailable(url, error)
            self.meter.failed(request.url.authority, kind_of(failure.failure))
            if failure.passing:
                admission.failed(str(failure))
            raise failure from error
        except asyncio.CancelledError:
            answer_by_s = patience.get().answer_by_s
            if answer_by_s is not None and asyncio.get_running_loop().time() >= answer_by_s:
                admission.failed(f"{url.origin} did not answer in time")
            raise
        finally:
            admission.left()
        if response.peer is not None:
            hop.address = joined_address(*response.peer)
        return response

    async def _admitted(
        self,
        stack: contextlib.AsyncExitStack,
        request: UpstreamRequest,
        url: Url,
        headers: list[tuple[str, str]],
        admission: Admission,
    ) -> Response:
        """Return one hop's answer. Raises what aiohttp raises, OSError and TimeoutError."""
        assert self._session is not None
        proxy = self._proxy_for(url)
        login = None if proxy is None else proxy_authorization(proxy)
        to_proxy = {} if login is None else {"Proxy-Authorization": login}
        self._resolver.check_literal(url.host, url.port)
        async with asyncio.timeout(connect_limit_s(admission.is_probe)) as limit:
            response = await stack.enter_async_context(
                self._session.request(
                    request.method,
                    yarl.URL(str(url), encoded=True),
                    # A request in plain http is one to the proxy; for https that is the CONNECT before it.
                    headers=[*headers, *to_proxy.items()] if url.scheme == "http" else headers,
                    data=request.body,
                    allow_redirects=False,
                    ssl=self._tls_for(url),
                    proxy=None if proxy is None else str(proxy),
                    proxy_headers=to_proxy,
                    trace_request_ctx=limit,
                )
            )
        admission.answered(response.status)
        if stale_allowed(Status(response.status)):
            self.meter.failed(request.url.authority, str(response.status))
        assert isinstance(response, Response)
        response.opened_by = request.opened_by
        return response

    def _proxy_for(self, url: Url) -> ForwardProxy | None:
        """Return the proxy that leads to a URL; a mapped name is reached where the operator said, directly."""
        proxy = self._options.proxies.choose(url.scheme, url.host, url.port)
        return None if proxy is None or find_mapping(url.host, self._options.mappings) is not None else proxy

    def _tls_for(self, url: Url) -> ssl.SSLContext | bool:
        """Return how this host is verified; True is the session's way."""
        if self._unverified_tls is None or find_pattern(url.host, url.port, self._options.unverified) is None:
            return True
        return self._unverified_tls


def joined_address(host: str, port: int) -> str:
    """Return an address as logs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _next(url: Url, location: str, hops: int, request: UpstreamRequest) -> Url:
    try:
        return next_hop(url, location, hops, registry_insecure=request.url.scheme == "http")
    except RedirectRefused as error:
        raise UpstreamUnavailable(str(error), ConnectionFailed(), passing=False) from error
