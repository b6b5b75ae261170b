"""Real servers on loopback, scripted by a test, and upstream clients that may reach them."""

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from lab.pki import Pki, create_pki
from regproxy.origin.client import Upstream, UpstreamOptions
from regproxy.policy.interception import HostPattern

type Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
type Serve = Callable[..., Awaitable[int]]
type Open = Callable[..., Upstream]

OPTIONS = UpstreamOptions(
    verify_tls=True,
    ca_file=None,
    mappings=(),
    listed=(HostPattern.parse("127.0.0.1"),),
    ipv4_only=True,
    connect_timeout_s=5,
    read_timeout_s=5,
)


@pytest.fixture(autouse=True)
def no_system_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the system's 140 authorities unread: 20 ms for each client, and no test here meets one of them."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory: Path = tmp_path_factory.mktemp("origin")
    return create_pki(directory / "pki", ["registry.test", "cdn.test"], ["127.0.0.1"])


@pytest.fixture
async def serve(pki: Pki) -> AsyncIterator[Serve]:
    """Yield what starts an HTTP server for a handler; `tls=True` gives it the lab's certificate. Returns the port."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler, *, tls: bool = False) -> int:
            context = None
            if tls:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(pki.certificate_file, pki.key_file)
            runner = web.ServerRunner(web.Server(handler, auto_decompress=False), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            return int(runner.addresses[0][1])

        yield start


@pytest.fixture
async def serve_raw() -> AsyncIterator[Callable[[Callable[[str], bytes]], Awaitable[int]]]:
    """Yield what starts a server that answers a request's head with bytes as they are, and closes."""
    async with AsyncExitStack() as stack:

        async def start(answer: Callable[[str], bytes]) -> int:
            async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(answer(head.decode("latin-1")))
                    await writer.drain()
                finally:
                    writer.close()

            server = await asyncio.start_server(converse, "127.0.0.1", 0)
            stack.callback(server.close)
            return int(server.sockets[0].getsockname()[1])

        yield start


@pytest.fixture
async def open_upstream() -> AsyncIterator[Open]:
    """Yield what opens an upstream client; keywords replace options."""
    async with AsyncExitStack() as stack:

        def open_one(**changes: object) -> Upstream:
            upstream = Upstream(dataclasses.replace(OPTIONS, **changes))  # type: ignore[arg-type]
            upstream.open()
            stack.push_async_callback(upstream.close)
            return upstream

        yield open_one
