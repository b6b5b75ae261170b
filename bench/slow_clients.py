"""Many clients that read one body slowly: `python -m bench.slow_clients URL --clients 200 --rate 200000`.

Small receive buffers, so that the server feels how slow they are. It prints `ready` when all of them have their first
bytes, reads on until it is sent a line or its time is over, and prints how many were still served and how fast.
"""

import argparse
import asyncio
import json
import socket
import ssl
import sys
import time
from dataclasses import dataclass

from bench.raw_client import Resource, add_arguments, expect_ok, resource_of

_RECEIVE_BUFFER_BYTES = 64 * 1024
_TURNS_PER_S = 4
_CONNECTING_AT_ONCE = 16
_READY_LIMIT_S = 60.0


@dataclass(slots=True)
class _Reader:
    """One slow client."""

    resource: Resource
    context: ssl.SSLContext
    piece_bytes: int
    received_bytes: int = 0
    is_reading: bool = False

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that has its answer's head and first bytes."""
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, self.resource.first_hop)
        reader, writer = await asyncio.open_connection(sock=plain, limit=_RECEIVE_BUFFER_BYTES)
        request = self.resource.connect_request()
        if request is not None:
            writer.write(request)
            expect_ok(await reader.readuntil(b"\r\n\r\n"))
        if self.resource.is_tls:
            await writer.start_tls(self.context, server_hostname=self.resource.host)
        writer.write(self.resource.get())
        expect_ok(await reader.readuntil(b"\r\n\r\n"))
        self.received_bytes += len(await reader.read(1))
        self.is_reading = True
        return reader, writer

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read at the rate until cancelled or cut off."""
        due_s = time.monotonic()
        while self.is_reading:
            piece = await reader.read(self.piece_bytes)
            self.is_reading = bool(piece)
            self.received_bytes += len(piece)
            due_s += len(piece) / self.piece_bytes / _TURNS_PER_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def read_slowly(resource: Resource, clients: int, rate_bytes_per_s: int, limit_s: float) -> dict[str, float]:
    """Return how many clients were served to the end and the median of their bytes per second."""
    context = resource.tls_context()
    readers = [_Reader(resource, context, rate_bytes_per_s // _TURNS_PER_S) for _ in range(clients)]
    turnstile = asyncio.Semaphore(_CONNECTING_AT_ONCE)

    async def connect(reader: _Reader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with turnstile:
            return await reader.connect()

    async with asyncio.timeout(_READY_LIMIT_S):
        connections = await asyncio.gather(*(connect(reader) for reader in readers))
    reading = [asyncio.ensure_future(r.read(c[0])) for r, c in zip(readers, connections, strict=True)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    started_s, before_bytes = time.monotonic(), sum(reader.received_bytes for reader in readers)
    await _wait_for_line(limit_s)
    seconds = time.monotonic() - started_s
    received_bytes = sum(reader.received_bytes for reader in readers) - before_bytes
    served = sum(reader.is_reading for reader in readers)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    for _, writer in connections:
        writer.transport.abort()
    return {"reading": served, "bytes_per_s": received_bytes / seconds / clients}


async def _wait_for_line(limit_s: float) -> None:
    said = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), said.set)
    try:
        async with asyncio.timeout(limit_s):
            await said.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(sys.stdin.fileno())


def main() -> None:
    """Read until the line comes."""
    parser = argparse.ArgumentParser(description="Read one body slowly with many clients.")
    add_arguments(parser)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True, help="bytes per second of each client")
    parser.add_argument("--seconds", type=float, required=True, help="limit of the whole")
    chosen = parser.parse_args()
    answer = asyncio.run(read_slowly(resource_of(chosen), chosen.clients, chosen.rate, chosen.seconds))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
