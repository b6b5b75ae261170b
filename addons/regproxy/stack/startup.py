"""Reads the settings, sets mitmproxy up for this job, opens what the stack needs, and closes it again.

An error here ends the process, so a proxy without its stack cannot come to be: mitmproxy loads a script in a task of
its own, where an exception leaves a bare, open proxy running without a word.
"""

import asyncio
import datetime as dt
import gc
import logging
import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.utils import asyncio_utils

from regproxy.engine.authority import AuthorityError
from regproxy.engine.certificates import Certificates
from regproxy.engine.connection_count import ConnectionLimits
from regproxy.engine.lean_addons import remove_unused_addons
from regproxy.engine.registry_mode import MODE, FrontDoor
from regproxy.engine.sender import BodySender
from regproxy.engine.time_limits import TimeLimitWatch
from regproxy.engine.warm_connection import Reception
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.observer import Observer
from regproxy.settings import Settings, SettingsError, load_settings
from regproxy.shared.tier import TierError
from regproxy.stack.announcements import announce
from regproxy.stack.ca import CaWatch
from regproxy.stack.core import Core
from regproxy.stack.credential_check import report_credentials
from regproxy.stack.ending import connection_handlers, make_drain
from regproxy.stack.private_process import keep_private
from regproxy.stack.warm_reads import WarmReads
from regproxy.stack.wiring import (
    make_shared_tier,
    make_upstream,
    mitmproxy_options,
    summary,
    time_limits,
    without_own_proxies,
)
from regproxy.stack.workers import Counting, Workers
from regproxy.store.adoption import adopt_old_cache
from regproxy.store.errors import StoreError

if TYPE_CHECKING:
    from regproxy.stack.debug_mode import DebugMode

logger = logging.getLogger(__name__)


class Startup:
    """The first addon of the stack."""

    name = "registry-startup"

    def __init__(  # noqa: PLR0913, PLR0917 - it starts them all
        self,
        core: Core,
        certificates: Certificates,
        sender: BodySender,
        front_door: FrontDoor,
        warm: WarmReads,
        counters: Sequence[Counting],
    ) -> None:
        self._core = core
        self._front_door = front_door
        self._warm = warm
        self._counters = counters
        self._certificates = certificates
        self._sender = sender
        self._workers = Workers()
        self._refused = False
        self._debug_mode: DebugMode | None = None
        self._ca_watch: CaWatch

    def load(self, loader: Loader) -> None:
        """Read the settings and set mitmproxy's options from them."""
        del loader  # no options of our own: an unparsable one would start a bare proxy without a word
        try:
            settings = load_settings(os.environ)
            self._workers.begin(settings)
        except SettingsError as error:
            self._refuse(*error.problems)
            return
        except OSError as error:
            self._refuse(f"WORKERS={settings.workers or 'auto'}: {error}")
            return
        keep_private(os.environ)
        settings = without_own_proxies(settings)
        _say_all_ourselves(settings)
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
        self._workers.open(self._core, self._front_door)
        try:
            self._open(settings)
        except (AuthorityError, StoreError, TierError, OSError) as error:
            self._refuse(str(error))
            return
        store, shared = self._core.store, self._core.shared
        self._sender.stall_limit_s = settings.send_timeout_s or math.inf
        self._workers.connect(self._core, self._counters)
        watch = TimeLimitWatch(time_limits(settings), connection_handlers)
        asyncio_utils.create_task(watch.run(), name="time limits", keep_ref=True)
        asyncio_utils.create_task(self._ca_watch.run(), name="look after the CA", keep_ref=True)
        asyncio_utils.create_task(store.housekeeping(), name="store housekeeping", keep_ref=True)
        for counter in self._counters:
            asyncio_utils.create_task(counter.run(), name=type(counter).__name__.lower(), keep_ref=True)
        if shared is not None:
            asyncio_utils.create_task(shared.run(), name="shared tier", keep_ref=True)
        self._choose_road(settings)
        if self._core.desk.is_here:
            for warning in settings.warnings:
                logger.warning("%s", warning)
            logger.info("%s", summary(settings))
        self._core.drain = make_drain(self._core, self._front_door, one_of_several=self._workers.crew is not None)
        self._core.drain.listen()
        asyncio_utils.create_task(_listen_and_check(self._core, self._workers), name="listen", keep_ref=True)
        adopting = partial(adopt_old_cache, store, settings.old_cache, settings.cache_inactive_s)
        asyncio_utils.create_task(
            self._workers.once("old cache", adopting), name="take over an old cache", keep_ref=True
        )

    def _open(self, settings: Settings) -> None:
        """Open what there is to open. Raises AuthorityError, StoreError, TierError, OSError."""
        self._ca_watch = CaWatch(settings, self._certificates, self._core.desk, self._workers.lock(settings))
        ca = self._ca_watch.open(dt.datetime.now(dt.UTC))
        observer = self._debug_mode.observer if self._debug_mode else None
        upstream = _open_upstream(self._core, observer)
        store = self._workers.store(settings)
        store.open()
        shared = make_shared_tier(settings, store, self._workers.sharing)
        if self._debug_mode is not None:
            self._debug_mode.open()
        self._core.start(store, upstream, ca, shared)

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
        wanted = ConnectionLimits(settings.max_connections, settings.max_connections_per_client)
        self._front_door.count = self._workers.connection_count(wanted)
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
            self._ca_watch.write_clients()
            asyncio_utils.create_task(self._core.upstream.close(), name="close upstream connections", keep_ref=True)
            if self._core.shared is not None:
                self._core.shared.close()
            self._core.store.close()


def _say_all_ourselves(settings: Settings) -> None:
    """Print messages in our form; mitmproxy's printer would do it a second time, in another."""
    termlog = ctx.master.addons.get("termlog")
    if termlog is not None:
        termlog.logger.uninstall()
    announce(settings.log_format, settings.least_level)


async def _listen_and_check(core: Core, workers: Workers) -> None:
    """Open the port, or end the process; then say of each credential whether it works."""
    gc.freeze()  # a tenth of a connection's cost: the collector would pass over all that was imported, again and again
    await _listen()
    if core.is_ending:
        return  # it was told to end before it had begun
    if not ctx.master.addons.get("proxyserver").listen_addrs():
        _exit_soon()  # mitmproxy has said why
        return
    workers.serves()
    settings = core.settings
    if settings.offline or not core.desk.is_here:
        return
    await report_credentials(core.credentials, core.upstream, settings.registries + settings.trusted_hosts)


async def _listen() -> None:
    """Open the port, now that there is a stack to answer.

    mitmproxy binds its default address before it loads a script, so `entrypoint.sh` starts it without a server. A bare
    `mitmdump -s` has one already, which is closed first.
    """
    proxyserver = ctx.master.addons.get("proxyserver")
    if ctx.options.server:
        ctx.options.update(server=False)
    ctx.options.update(server=True)
    await proxyserver.setup_servers()  # waits for the two updates, which run one after the other


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
