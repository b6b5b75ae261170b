"""Reads the settings, sets mitmproxy up for this job, opens what the stack needs, and closes it again.

An error here ends the process, so a proxy without its stack cannot come to be: mitmproxy loads a script in a task of
its own, where an exception leaves a bare, open proxy running without a word.
"""

import asyncio
import dataclasses
import datetime as dt
import logging
import math
import os
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.utils import asyncio_utils

from regproxy.engine.authority import AuthorityError, load_or_create
from regproxy.engine.certificates import Certificates
from regproxy.engine.lean_addons import remove_unused_addons
from regproxy.engine.registry_mode import MODE, FrontDoor
from regproxy.engine.sender import BodySender
from regproxy.engine.time_limits import TimeLimits, TimeLimitWatch
from regproxy.engine.warm_connection import Reception
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.client import UpstreamOptions
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.resolver import Lookup, is_own_port, system_lookup
from regproxy.origin.tracing import Observer
from regproxy.policy.upstream_proxy import ForwardProxy
from regproxy.settings import Settings, SettingsError, load_settings
from regproxy.stack.announcements import announce
from regproxy.stack.core import Core
from regproxy.stack.credential_check import report_credentials
from regproxy.stack.warm_reads import WarmReads
from regproxy.store.adoption import adopt_old_cache
from regproxy.store.content import Store
from regproxy.store.errors import StoreError

if TYPE_CHECKING:
    from regproxy.stack.debug_mode import DebugMode

logger = logging.getLogger(__name__)

NEVER_S = 10 * 365 * 86400
"""An inactivity limit that no connection meets."""

COMMIT_S = 900.0
"""What the predecessor gave every answer, whatever PROXY_READ_TIMEOUT was; here the answers to writes have it."""

SYSTEM_CA_DIRECTORY = "/etc/ssl/certs"
"""Where Debian, Alpine and SUSE keep the system's authorities by hash."""


class Startup:
    """The first addon of the stack."""

    name = "registry-startup"

    def __init__(
        self,
        core: Core,
        certificates: Certificates,
        sender: BodySender,
        front_door: FrontDoor,
        warm: WarmReads,
    ) -> None:
        self._core = core
        self._front_door = front_door
        self._warm = warm
        self._certificates = certificates
        self._sender = sender
        self._refused = False
        self._debug_mode: DebugMode | None = None

    def load(self, loader: Loader) -> None:
        """Read the settings and set mitmproxy's options from them."""
        del loader  # no options of our own: an unparsable one would start a bare proxy without a word
        try:
            settings = load_settings(os.environ)
        except SettingsError as error:
            self._refuse(*error.problems)
            return
        settings = without_own_proxies(settings)
        announce(debug=settings.debug_nginx)
        self._core.configure(settings)
        told = mitmproxy_options(settings)
        # mitmweb has no `flow_detail`, for one.
        ctx.options.update(**{option: value for option, value in told.items() if option in ctx.options})
        if ctx.master.addons.get("webauth") is not None:
            self._debug_mode = _debug_mode(settings)
            self._core.own_ports |= self._debug_mode.ports

    def running(self) -> None:
        """Open CA, store and upstream client; the proxy is ready afterwards."""
        if self._refused:
            return
        misspelt = sorted(key for key in ctx.options.deferred if key.startswith("registry"))
        if misspelt:
            self._refuse(
                f"{misspelt}: the proxy's settings are environment variables or CONFIG_FILE, not mitmproxy options"
            )
            return
        settings = self._core.settings
        try:
            authority = load_or_create(
                settings.ca_certificate_file,
                settings.ca_key_file,
                settings.cert_password or None,
                dt.datetime.now(dt.UTC),
            )
            observer = self._debug_mode.observer if self._debug_mode else None
            upstream = _open_upstream(self._core, observer)
            store = Store(
                settings.cache_directory,
                settings.cache_max_size_bytes,
                settings.cache_inactive_s,
                settings.cache_min_free_bytes,
            )
            store.open()
            if self._debug_mode is not None:
                self._debug_mode.open()
        except (AuthorityError, StoreError, OSError) as error:
            self._refuse(str(error))
            return
        self._certificates.authority = authority
        self._sender.stall_limit_s = settings.send_timeout_s or math.inf
        self._core.start(store, upstream, authority)
        watch = TimeLimitWatch(time_limits(settings), _connections)
        asyncio_utils.create_task(watch.run(), name="time limits", keep_ref=True)
        asyncio_utils.create_task(store.housekeeping(), name="store housekeeping", keep_ref=True)
        self._choose_road(settings)
        ca_warnings = authority.end_is_near(settings.ca_certificate_file, dt.datetime.now(dt.UTC))
        for warning in (*settings.warnings, *ca_warnings):
            logger.warning("%s", warning)
        logger.info("%s", summary(settings))
        asyncio_utils.create_task(_listen_and_check(self._core), name="listen", keep_ref=True)
        adopting = adopt_old_cache(store, settings.old_cache, settings.cache_inactive_s)
        asyncio_utils.create_task(adopting, name="take over an old cache", keep_ref=True)

    def _choose_road(self, settings: Settings) -> None:
        """Leave mitmproxy's hooks out where that is possible: a user interface must see every request."""
        if self._debug_mode is not None:
            ctx.master.addons.add(self._debug_mode)
        elif settings.debug_ports:
            logger.warning("DEBUG and DEBUG_HUB need mitmweb: start entrypoint.sh, or mitmweb in the place of mitmdump")
        if ctx.master.addons.get("webauth") is None and ctx.master.addons.get("view") is None:
            self._open_front_door(settings)
            remove_unused_addons(ctx.master.addons, ctx.options)

    def _open_front_door(self, settings: Settings) -> None:
        self._front_door.reception = self.reception(settings)
        ctx.options.update(mode=[MODE])

    def reception(self, settings: Settings) -> Reception:
        """Return what connections begin with; nginx's 0 is no limit."""
        return Reception(
            warm=self._warm,
            tls_context=self._certificates.context_for,
            sender=self._sender,
            head_timeout_s=settings.client_header_timeout_s or math.inf,
            keepalive_timeout_s=settings.keepalive_timeout_s,
            send_timeout_s=settings.send_timeout_s or math.inf,
        )

    def _refuse(self, *problems: str) -> None:
        """Say why there will be no proxy, and end the process."""
        self._refused = True
        for problem in problems:
            sys.stderr.write(f"registry-proxy: error: {problem}\n")
        _exit_soon()

    def done(self) -> None:
        """Keep what has arrived, close what is open."""
        if self._core.ready:
            asyncio_utils.create_task(self._core.upstream.close(), name="close upstream connections", keep_ref=True)
            self._core.store.close()


def mitmproxy_options(settings: Settings) -> dict[str, object]:
    """Return mitmproxy's options for this job; each differs from its default for the reason given."""
    options: dict[str, object] = {
        "listen_host": settings.listen_host,
        "listen_port": settings.listen_port,
        "connection_strategy": "lazy",  # eager: CONNECT fails when the upstream is down and no addon is ever asked
        "upstream_cert": False,  # true: leaves copy the names of upstream certificates
        "http2": False,  # the sender writes past HTTP's framing
        "http3": False,
        "onboarding": False,  # mitm.it: a second place that hands out a CA
        "block_global": False,  # true: nodes with public addresses could not pull
        "ssl_insecure": not settings.verify_ssl,
        "tcp_timeout": NEVER_S,  # `engine.time_limits` knows what a connection waits for
        "flow_detail": 0,  # the access log has one line a request
        "termlog_verbosity": "debug" if settings.debug_nginx else "warn",
    }
    if settings.upstream_ca_file is not None:
        options["ssl_verify_upstream_trusted_ca"] = str(settings.upstream_ca_file)
        options["ssl_verify_upstream_trusted_confdir"] = SYSTEM_CA_DIRECTORY
    return options


def time_limits(settings: Settings) -> TimeLimits:
    """Return the limits of connections under the engine's names."""
    return TimeLimits(
        client_header_s=settings.client_header_timeout_s,
        client_body_s=settings.client_body_timeout_s,
        keepalive_s=settings.keepalive_timeout_s,
        send_s=settings.send_timeout_s,
        upstream_connect_s=settings.proxy_connect_timeout_s,
        upstream_send_s=settings.proxy_send_timeout_s,
        upstream_read_s=settings.proxy_read_timeout_s,
        upstream_commit_s=max(settings.proxy_read_timeout_s, COMMIT_S) if settings.proxy_read_timeout_s else 0.0,
        tunnel_connect_s=settings.proxy_connect_connect_timeout_s,
        tunnel_silence_s=settings.proxy_connect_read_timeout_s,
    )


def _connections() -> Iterable[ConnectionHandler]:
    """Return the handlers of all client connections."""
    handlers: Iterable[ConnectionHandler] = ctx.master.addons.get("proxyserver").connections.values()
    return handlers


async def _listen_and_check(core: Core) -> None:
    """Open the port, and then say of each credential whether it works."""
    await _listen()
    settings = core.settings
    await report_credentials(core.credentials, core.upstream, settings.registries + settings.trusted_hosts)


async def _listen() -> None:
    """Open the port, now that there is a stack to answer; the process ends if it cannot be had.

    mitmproxy binds its default address before it loads a script, so `entrypoint.sh` starts it without a server. A bare
    `mitmdump -s` has one already, which is closed first.
    """
    proxyserver = ctx.master.addons.get("proxyserver")
    if ctx.options.server:
        ctx.options.update(server=False)
    ctx.options.update(server=True)
    await proxyserver.setup_servers()  # waits for the two updates, which run one after the other
    if not proxyserver.listen_addrs():
        _exit_soon()  # mitmproxy has said why


def _exit_soon() -> None:
    """End the process with code 1; from the loop itself, for in a task it would be told as a crash."""
    asyncio.get_running_loop().call_soon(sys.exit, 1)


def _debug_mode(settings: Settings) -> "DebugMode":
    from regproxy.stack.debug_mode import DebugMode  # noqa: PLC0415 - 3 MB that mitmdump does without

    return DebugMode(settings)


def _open_upstream(core: Core, observer: Observer | None) -> AuthorizedUpstream:
    """Return the HTTP client. Raises OSError that names the bundle if that cannot be used."""
    settings = core.settings
    upstream = make_upstream(settings, core.credentials, core.lookup, observer)
    try:
        upstream.open()
    except OSError as error:
        raise OSError(f"UPSTREAM_CA_FILE={settings.upstream_ca_file}: {error.strerror or error}") from error
    return upstream


def make_upstream(
    settings: Settings, credentials: CredentialSource, lookup: Lookup = system_lookup, observer: Observer | None = None
) -> AuthorizedUpstream:
    """Return the HTTP client, not opened, with the operator's credentials."""
    options = dataclasses.replace(upstream_options(settings), lookup=lookup)
    return AuthorizedUpstream(options, credentials, settings.trusted_hosts, observer)


def upstream_options(settings: Settings) -> UpstreamOptions:
    """Return what the origin room needs of the settings."""
    return UpstreamOptions(
        verify_tls=settings.verify_ssl,
        ca_file=settings.upstream_ca_file,
        mappings=settings.upstream_mappings,
        listed=settings.registries + settings.trusted_hosts,
        ipv4_only=settings.disable_ipv6,
        connect_timeout_s=settings.proxy_connect_timeout_s,
        read_timeout_s=settings.proxy_read_timeout_s,
        unverified=settings.verify_ssl_except,
        proxies=settings.upstream_proxies,
    )


def without_own_proxies(settings: Settings) -> Settings:
    """Leave out an upstream proxy that is this proxy itself: an environment meant for its clients would make a loop."""
    own = [proxy for proxy in settings.upstream_proxies.proxies if _leads_here(proxy, settings.listen_port)]
    warnings = (f"{proxy} of HTTPS_PROXY or HTTP_PROXY is this proxy itself and is not used" for proxy in own)
    return dataclasses.replace(
        settings,
        upstream_proxies=settings.upstream_proxies.without(own),
        warnings=settings.warnings + tuple(dict.fromkeys(warnings)),
    )


def _leads_here(proxy: ForwardProxy, listen_port: int) -> bool:
    try:
        found = socket.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except OSError:
        return False  # it may have an address later
    return any(is_own_port(str(entry[4][0]), proxy.port, {listen_port}) for entry in found)


def summary(settings: Settings) -> str:
    """Return the line that says at start what this proxy does."""
    hosts = " ".join(str(pattern) for pattern in settings.registries)
    return (
        f"registry-proxy listens on {settings.listen_host or '*'}:{settings.listen_port}, "
        f"intercepts Docker Hub and {hosts or 'nothing else'}, "
        f"caches up to {settings.cache_max_size_bytes} bytes in {settings.cache_directory}; "
        f"tags {'by tier' if settings.enable_manifest_cache else 'revalidated at every pull'}, "
        f"pushes {'allowed' if settings.allow_push else 'refused'}"
    )
