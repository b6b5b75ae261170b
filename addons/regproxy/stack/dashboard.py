"""The dashboard: `/` for a browser, and what the page lives from, at the proxy's own address.

The page is files of `config/dashboard` and a JSON document that it asks for every two seconds. Everybody who reaches
the port may read it; names of images, accounts and clients are for whom the admin API is for (`policy.admin_access`).
"""

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mitmproxy import http
from mitmproxy.utils import asyncio_utils

from regproxy.engine.http_layer import Door, door
from regproxy.engine.parcels import unwrap, wrap
from regproxy.policy.admin_access import refusal
from regproxy.stack.answers import answer
from regproxy.stack.core import Core
from regproxy.stack.dashboard_document import DiskState, document
from regproxy.stack.desk import DeskAwayError
from regproxy.stack.downloads import Shown, together
from regproxy.stack.statistics import Statistics
from regproxy.store.errors import StoreError

FILES = Path(__file__).resolve().parents[3] / "config" / "dashboard"

_PAGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/": ("index.html", "text/html; charset=utf-8"),
        "/_proxy/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
        "/_proxy/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
        "/_proxy/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
        "/_proxy/words.js": ("words.js", "text/javascript; charset=utf-8"),
    }
)
_DOCUMENT = "/_proxy/dashboard.json"
_TOPIC, _DOWNLOADS = "dashboard", "downloads"

_PROTECTION: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)
"""Names come from clients: should one ever become more than text, there is nothing that it could run or tell."""

DISK_LOOK_INTERVAL_S = 10.0
"""The oldest entry is looked up on the index thread, behind what pulls need: seldom."""


class Dashboard:
    """Stands before the other pages of the proxy's own address."""

    name = "registry-dashboard"

    def __init__(self, core: Core, statistics: Statistics) -> None:
        self._core, self._statistics = core, statistics
        self._disk: DiskState | None = None
        self._disk_due_s = 0.0
        core.desk.on_question(_TOPIC, self._at_the_desk)
        core.desk.on_question(_DOWNLOADS, self._own_downloads)

    def running(self) -> None:
        """Go on counting where the last process ended."""
        if self._core.ready:
            self._statistics.open()
            asyncio_utils.create_task(self._statistics.run(), name="statistics", keep_ref=True)

    def done(self) -> None:
        """Keep what was counted."""
        if self._core.ready:
            self._statistics.close()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer a browser, and the page that it was given."""
        request = flow.request
        if flow.response is not None or door(request) is not Door.OWN or request.method not in ("GET", "HEAD"):
            return
        path = request.path.partition("?")[0]
        if path == "/" and "text/html" not in request.headers.get("accept", ""):
            return  # a health check, which looks for the predecessor's words
        if path in _PAGES:
            name, media_type = _PAGES[path]
            flow.response = _answered(request, media_type, _file(name))
        elif path == _DOCUMENT and self._core.ready:
            try:
                text = unwrap(await self._core.desk.ask(_TOPIC, self._sees_names(flow)))
            except (DeskAwayError, OSError):
                flow.response = answer(503, {"Cache-Control": "no-store"})
            else:
                flow.response = _answered(request, "application/json", text)

    async def _at_the_desk(self, names: bool) -> list[Any]:
        told = await self._document(names=names)
        return wrap(json.dumps(told, separators=(",", ":")).encode())

    async def _own_downloads(self, _: object) -> list[dict[str, Any]]:
        self._statistics.look()
        return [asdict(each) for each in self._core.downloads.shown()]

    async def _document(self, *, names: bool) -> dict[str, object]:
        desk = self._core.desk
        await desk.have_told()
        told_elsewhere = await desk.others(_DOWNLOADS)
        self._statistics.look()
        await self._look_at_the_disk()
        store, disk = self._core.store, self._disk
        disk = replace(disk, usage=await store.look_at_usage()) if disk is not None and store.is_open else None
        elsewhere = [Shown(**{**each, "clients": tuple(each["clients"])}) for told in told_elsewhere for each in told]
        downloads = together([*self._core.downloads.shown(), *elsewhere])
        told = document(self._core, self._statistics, disk, downloads, names=names)
        return {**told, "token_helps": bool(self._core.settings.admin_token) and not names}

    def _sees_names(self, flow: http.HTTPFlow) -> bool:
        """Whether the answer to this request may name images, accounts and clients: the one place that decides it."""
        headers = {name.lower(): value for name, value in flow.request.headers.items()}
        peername = flow.client_conn.peername
        settings = self._core.settings
        return refusal(headers, peername[0] if peername else "", settings.admin_token, settings.admin_hosts) is None

    async def _look_at_the_disk(self) -> None:
        now_s = time.monotonic()
        if now_s < self._disk_due_s or not self._core.store.is_open:
            return
        self._disk_due_s = now_s + DISK_LOOK_INTERVAL_S
        store = self._core.store
        try:
            disk = await asyncio.to_thread(shutil.disk_usage, store.directory)
            self._disk = DiskState(disk.free, await store.oldest_access_s(), await store.look_at_usage())
        except (StoreError, OSError) as error:
            self._core.store_failed(error)


def _answered(request: http.Request, media_type: str, body: bytes) -> http.Response:
    fields = {"Content-Type": media_type, **_PROTECTION}
    return answer(200, fields, b"" if request.method == "HEAD" else body, length_bytes=len(body))


@cache
def _file(name: str) -> bytes:
    return (FILES / name).read_bytes()
