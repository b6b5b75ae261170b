"""The pool of connections, with a real server on a socket."""

import asyncio

import aiohttp
import pytest

from regproxy.origin.connections import QuietConnector

HONEST = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhonest"
UNASKED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"


class Server:
    """Answers every request, and goes on talking when nobody has asked."""

    def __init__(self) -> None:
        self.connections = 0
        self.says_more = asyncio.Event()
        self.said_more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        is_first = self.connections == 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(HONEST)
                if is_first:
                    await self.says_more.wait()
                    writer.write(UNASKED)
                    await writer.drain()
                    self.said_more.set()
                    is_first = False
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize("talks", [True, False], ids=["something came", "quiet"])
async def test_an_answer_that_nobody_asked_for_is_nobodys(talks: bool) -> None:
    """The next request goes out on another connection; on a quiet one it goes out again."""
    scripted = Server()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    if not talks:
        scripted.connections = 1  # the first one that comes is an honest one
    try:
        async with aiohttp.ClientSession(connector=QuietConnector()) as session:
            bodies = []
            for number in range(3):
                async with session.get(url) as response:
                    bodies.append(await response.read())
                if talks and number == 0:
                    scripted.says_more.set()
                    await scripted.said_more.wait()
                    await asyncio.sleep(0.1)  # until the bytes have come through the kernel
    finally:
        server.close()
    assert bodies == [b"honest"] * 3
    assert scripted.connections == 2
