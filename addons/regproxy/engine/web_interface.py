"""mitmweb, made fit to stand in a network: a password that is in no process argument, and little to act on.

mitmweb can change options, load scripts, replay and edit requests and write files. Here it shows: a request that would
change anything but the list of flows itself is refused, unless it is one of our own commands for the cache.
"""

import logging
import re
from typing import Protocol

import argon2
import tornado.httpserver
import tornado.httputil
import tornado.routing
import tornado.web
from mitmproxy import optmanager
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons.view import View

from regproxy.policy.masking import masked_text

COLUMNS = ("icon", "method", "path", "status", "time", "comment")
"""Of mitmweb's list. Its own default has the size of the bodies, which are not kept here, and no comment."""

WEBSOCKET_PING_INTERVAL_S = 20
"""Closes what a vanished browser has left: mitmweb queues every event for it without a limit."""

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_ALLOWED_CHANGES = frozenset({("POST", "/"), ("POST", "/clear"), ("POST", "/commands/export")})
"""To log in, to empty the list, and to show a flow as a curl command, which mitmweb asks for by POST."""

_OWN_COMMANDS = re.compile(r"/commands/registry\.[a-z]+")
"""What `stack.admin.commands` has; mitmproxy's own commands write files and change options."""

_HIDDEN_PATHS = re.compile(r"/processes|/executable-icon|/flows/.*/content\.data")
"""What else runs on this machine, and bodies to download: there are none, and mitmweb fails over that."""

_TORNADO_LOGGERS = ("tornado.access", "tornado.application", "tornado.general")


class WebMaster(Protocol):
    """The part of mitmweb's `WebMaster` that is used; its module takes long to import and mitmdump does without."""

    addons: AddonManager
    options: optmanager.OptManager
    view: View
    app: tornado.web.Application


class _Acting(tornado.routing.Matcher):
    """Matches the requests that are refused."""

    def match(self, request: tornado.httputil.HTTPServerRequest) -> dict[str, object] | None:
        """Return None for what may be asked."""
        method = str(request.method)
        if _HIDDEN_PATHS.match(request.path):
            return {}
        is_allowed = (
            method in _READING_METHODS
            or (method, request.path) in _ALLOWED_CHANGES
            or (method == "POST" and _OWN_COMMANDS.fullmatch(request.path) is not None)
        )
        return None if is_allowed else {}


class _Refusal(tornado.web.RequestHandler):
    """Says no to every method."""

    def check_xsrf_cookie(self) -> None:
        """Nothing is done, so nobody's hand can be forced."""

    def prepare(self) -> None:
        """Answer before the method is looked at."""
        self.send_error(405, reason="This interface only shows")


def secure(master: WebMaster, password: str) -> None:
    """Let nobody in without the password, and let those who are in do nothing but look.

    mitmweb shows its options, so what it gets is a hash; a cheap one, for every request without a cookie costs one.
    """
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    master.options.update(web_password=hasher.hash(password))
    router = master.app.default_router
    router.rules.insert(0, tornado.routing.Rule(_Acting(), _Refusal))
    router.process_rule(router.rules[0])
    for name in _TORNADO_LOGGERS:
        logging.getLogger(name).addFilter(_masked_record)
    master.app.settings["websocket_ping_interval"] = WEBSOCKET_PING_INTERVAL_S


def listen_too(master: WebMaster, host: str, port: int) -> tornado.httpserver.HTTPServer:
    """Open the same interface on another port. Raises OSError."""
    server = tornado.httpserver.HTTPServer(master.app)
    server.listen(port, host)
    return server


def _masked_record(record: logging.LogRecord) -> bool:
    """Mask what tornado logs of a request: its address may have the password.

    The login page names an icon that mitmproxy 12.2.3 lacks. That is logged as an error, and an error while mitmproxy
    starts ends it.
    """
    record.msg, record.args = masked_text(record.getMessage()), ()
    return not record.msg.startswith("Could not open static file")
