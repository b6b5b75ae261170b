"""The stack on real parts: a store in a directory, a real upstream client, a registry on loopback."""

import contextlib
import datetime as dt
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from mitmproxy import connection, http
from mitmproxy.test import tflow

from regproxy.engine import http_layer
from regproxy.engine.certificates import Certificates
from regproxy.engine.http_layer import Door
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.settings import load_settings
from regproxy.stack import client_identities, manifests
from regproxy.stack.auth_injector import AuthInjector
from regproxy.stack.ca import CaWatch
from regproxy.stack.core import Core
from regproxy.stack.interception import Interception
from regproxy.stack.push_bypass import PushBypass
from regproxy.stack.wiring import make_upstream
from regproxy.store.content import Store
from unit.stack.registry import Registry

type Configure = Callable[..., Core]
type Request = Callable[..., http.HTTPFlow]


@pytest.fixture(autouse=True)
def no_system_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the system's 140 authorities unread: 20 ms for each client, and no test here meets one of them."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")


@pytest.fixture(autouse=True)
def umask_stays() -> Iterator[None]:
    """Give the next test the umask back that a proxy's start has changed."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """Start an empty registry."""
    started = Registry()
    runner = web.ServerRunner(web.Server(started.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    started.port = runner.addresses[0][1]
    yield started
    await runner.cleanup()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the time that manifests go by."""
    turned = SimpleNamespace(now_s=1_700_000_000.0)
    monkeypatch.setattr(manifests, "time", SimpleNamespace(time=lambda: turned.now_s))
    return turned


@pytest.fixture
async def configure(tmp_path: Path, registry: Registry) -> AsyncIterator[Configure]:
    """Yield what starts a stack's core; keywords are settings. The registry is listed and speaks plain http."""
    opened: list[tuple[Store, AuthorizedUpstream]] = []

    def start(**settings: str) -> Core:
        environ = {
            "REGISTRIES": f"http://{registry.name} quay.io",
            "CACHE_DIRECTORY": str(tmp_path / "cache"),
            "CA_DIRECTORY": str(tmp_path / "ca"),
        }
        core = Core()
        core.configure(load_settings(environ | settings))
        store = Store(core.settings.cache_directory, core.settings.cache_max_size_bytes, 3600.0, 0)
        store.open()
        upstream = make_upstream(core.settings, core.credentials)
        upstream.open()
        opened.append((store, upstream))
        core.start(store, upstream, CaWatch(core.settings, Certificates()).open(dt.datetime.now(dt.UTC)))
        return core

    yield start
    for store, upstream in opened:
        store.close()
        await upstream.close()


@pytest.fixture
async def core(configure: Configure) -> Core:
    """Start a core with the default settings."""
    return configure()


def make_flow(
    method: str,
    host: str,
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    door: Door | None = Door.TUNNEL,
    scheme: str = "https",
    body: bytes = b"",
) -> http.HTTPFlow:
    """Return a live flow as mitmproxy hands it to addons."""
    request = http.Request.make(method, f"{scheme}://{host}:{port}{path}", body)
    request.headers = http.Headers()
    request.headers["Host"] = f"{host}:{port}"
    for field, value in (headers or {}).items():
        request.headers[field] = value
    client = connection.Client(peername=("192.0.2.7", 4711), sockname=("192.0.2.1", 3128), timestamp_start=1.0)
    server = connection.Server(address=(host, port))
    flow = tflow.tflow(client_conn=client, server_conn=server, req=request)
    flow.live = True
    if door is not None:
        http_layer._doors[flow.request] = door
    return flow


async def at_once[Result](call: Callable[..., Result], *arguments: object) -> Result:
    """Do without a thread: in the place of `asyncio.to_thread`."""
    return call(*arguments)


@pytest.fixture
def ask(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[..., http.HTTPFlow]:
    """Return what makes a request to the registry that has passed the stack up to the caches."""
    monkeypatch.setattr(client_identities, "to_thread", at_once)

    def make(core: Core, path: str, method: str = "GET", **headers: str) -> http.HTTPFlow:
        fields = {field.replace("_", "-"): value for field, value in headers.items()}
        flow = make_flow(method, "127.0.0.1", registry.port, path, fields, scheme="http")
        Interception(core).requestheaders(flow)
        PushBypass(core).requestheaders(flow)
        # Without a helper or AWS it waits for nothing, and so ends at once.
        with contextlib.suppress(StopIteration):
            AuthInjector(core).requestheaders(flow).send(None)
        return flow

    return make
