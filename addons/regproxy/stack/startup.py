"""Reads the settings, sets mitmproxy up for this job, opens what the stack needs, and closes it again.

An error here ends the process, so a proxy without its stack cannot come to be: mitmproxy loads a script in a task of
its own, where an exception leaves a bare, open proxy running without a word.
"""

import asyncio
import datetime as dt
import logging
import os
import sys
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.utils import asyncio_utils

from regproxy.engine.authority import AuthorityError, load_or_create
from regproxy.engine.certificates import Certificates
from regproxy.engine.lean_addons import remove_unused_addons
from regproxy.engine.registry_mode import MODE, FrontDoor
from regproxy.engine.sender import BodySender
from regproxy.engine.warm_connection import Reception
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.client import UpstreamOptions
from regproxy.origin.logins import ListedCredentials
from regproxy.origin.tracing import Observer
from regproxy.settings import Settings, SettingsError, load_settings
from regproxy.stack.announcements import announce
from regproxy.stack.core import Core
from regproxy.stack.warm_reads import WarmReads
from regproxy.store.adoption import adopt_old_cache
from regproxy.store.content import Store
from regproxy.store.errors import StoreError

if TYPE_CHECKING:
    from regproxy.stack.debug_mode import DebugMode

logger = logging.getLogger(__name__)

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
        announce(debug=settings.debug_nginx)
        self._core.configure(settings)
        told = mitmproxy_options(settings)
        if "flow_detail" not in ctx.options:
            del told["flow_detail"]  # of mitmdump's own addon
        ctx.options.update(**told)
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
            upstream = _open_upstream(settings, self._debug_mode.observer if self._debug_mode else None)
            store = Store(settings.cache_directory, settings.cache_max_size_bytes, settings.cache_inactive_s)
            store.open()
            if self._debug_mode is not None:
                self._debug_mode.open()
        except (AuthorityError, StoreError, OSError) as error:
            self._refuse(str(error))
            return
        self._certificates.authority = authority
        self._sender.stall_limit_s = settings.send_timeout_s
        self._core.start(store, upstream, authority)
        asyncio_utils.create_task(store.housekeeping(), name="store housekeeping", keep_ref=True)
        self._choose_road(settings)
        ca_warnings = authority.end_is_near(settings.ca_certificate_file, dt.datetime.now(dt.UTC))
        for warning in (*settings.warnings, *ca_warnings):
            logger.warning("%s", warning)
        logger.info("%s", summary(settings))
        asyncio_utils.create_task(_listen(), name="listen", keep_ref=True)
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
        self._front_door.reception = Reception(
            warm=self._warm,
            tls_context=self._certificates.context_for,
            sender=self._sender,
            head_timeout_s=settings.client_header_timeout_s,
            keepalive_timeout_s=settings.keepalive_timeout_s,
        )
        ctx.options.update(mode=[MODE])

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
        "tcp_timeout": max(1, int(settings.keepalive_timeout_s)),
        "flow_detail": 0,  # the access log has one line a request
        "termlog_verbosity": "debug" if settings.debug_nginx else "warn",
    }
    if settings.upstream_ca_file is not None:
        options["ssl_verify_upstream_trusted_ca"] = str(settings.upstream_ca_file)
        options["ssl_verify_upstream_trusted_confdir"] = SYSTEM_CA_DIRECTORY
    return options


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


def _open_upstream(settings: Settings, observer: Observer | None) -> AuthorizedUpstream:
    """Return the HTTP client. Raises OSError that names the bundle if that cannot be used."""
    upstream = make_upstream(settings, observer)
    try:
        upstream.open()
    except OSError as error:
        raise OSError(f"UPSTREAM_CA_FILE={settings.upstream_ca_file}: {error.strerror or error}") from error
    return upstream


def make_upstream(settings: Settings, observer: Observer | None = None) -> AuthorizedUpstream:
    """Return the HTTP client, not opened, with the operator's credentials."""
    credentials = ListedCredentials(settings.credentials)
    return AuthorizedUpstream(upstream_options(settings), credentials, settings.trusted_hosts, observer)


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
    )


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
