"""The scripted clients: hundreds at once, by both doors, patient and not. Every byte is compared with the original."""

import asyncio
import contextlib
import json
import random
import ssl
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from lab.addresses import Address
from lab.soak.content import HOSTS, Piece, SoakContent

STALL_LIMIT_S = 120.0
"""A client that gets nothing for so long counts as forgotten by the proxy; all clients and servers share two cores."""
_CHUNK_BYTES = 1 << 18
_REQUESTS_OF_CONNECTION = 3
_SLOW_PAUSE_S = 0.05
_CODES = frozenset({"UNAVAILABLE", "TOOMANYREQUESTS"})
_OUTAGE = frozenset({401, 403, 429, 500, 502, 503, 504})
_NOT_SHOWN = "has not shown lately that it may read"
"""The proxy's words when it has a content but cannot ask the registry whether this client may have it."""


class Manner(Enum):
    """How a client reads an answer."""

    WHOLE = "whole"
    ABORT = "abort"
    """It goes away in the middle."""
    RANGE = "range"
    SLOW = "slow"


_MANNERS = (Manner.WHOLE,) * 14 + (Manner.ABORT,) * 4 + (Manner.RANGE,) * 1 + (Manner.SLOW,) * 1


@dataclass(slots=True)
class Tally:
    """What became of the transfers."""

    counts: Counter[str] = field(default_factory=Counter)
    received_bytes: int = 0
    errors: list[str] = field(default_factory=list)
    """What must not be: wrong bytes, refused connections, answers without end. The first ones."""
    under_way: int = 0
    most_under_way: int = 0

    def wrong(self, text: str) -> None:
        """Note what must not be."""
        self.counts["wrong"] += 1
        if len(self.errors) < 20:
            self.errors.append(text)


class CutError(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Clients of one proxy."""

    address: Address
    ca_file: Path
    content: SoakContent
    tally: Tally

    async def run(self, clients: int, seconds: float, seed: str) -> None:
        """Let so many clients pull, each one transfer after the other, for so long; what has begun is finished."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        until_s = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(random.Random(f"{seed} {number}"), context, until_s))  # noqa: S311

    async def pull_all(self) -> None:
        """Pull every piece once, whole, one after the other, from the first registry; nothing may fail."""
        for piece in self.content.pieces:
            reader, writer = await asyncio.open_connection(*self.address)
            try:
                await self._request(reader, writer, f"/v2/{HOSTS[0]}/{piece.path}", "proxy", piece, Manner.WHOLE)
            except (OSError, CutError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.tally.wrong(f"{piece.path} at rest: {error!r}")
            finally:
                await _close(writer)

    async def _client(self, chance: random.Random, context: ssl.SSLContext, until_s: float) -> None:
        await asyncio.sleep(chance.random())
        while asyncio.get_running_loop().time() < until_s:
            try:
                await self._connection(chance, context)
            except (CutError, asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
                self.tally.counts["cut"] += 1
            except TimeoutError:
                self.tally.wrong(f"no byte for {STALL_LIMIT_S:g} s")
            except OSError as error:
                self.tally.wrong(f"connection: {error!r}")

    async def _connection(self, chance: random.Random, context: ssl.SSLContext) -> None:
        """Make one connection and some transfers on it."""
        host, by_mirror = chance.choice(HOSTS), chance.random() < 0.5
        reader, writer = await asyncio.open_connection(*self.address)
        self.tally.under_way += 1
        self.tally.most_under_way = max(self.tally.most_under_way, self.tally.under_way)
        try:
            if not by_mirror:
                writer.write(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
                status, _ = await _read_head(reader)
                if status != 200:
                    self.tally.wrong(f"CONNECT {host}: {status}")
                    return
                await asyncio.wait_for(writer.start_tls(context, server_hostname=host), STALL_LIMIT_S)
            for _ in range(chance.randint(1, _REQUESTS_OF_CONNECTION)):
                piece, manner = self.content.choose(chance), chance.choice(_MANNERS)
                target = f"/v2/{host}/{piece.path}" if by_mirror else f"/v2/{piece.path}"
                if not await self._request(reader, writer, target, host, piece, manner, chance):
                    writer.transport.abort()
                    return
        finally:
            self.tally.under_way -= 1
            await _close(writer)

    async def _request(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: str,
        host: str,
        piece: Piece,
        manner: Manner,
        chance: random.Random | None = None,
    ) -> bool:
        """Ask for one piece; return whether the connection can go on."""
        chance = chance or random.Random(0)  # noqa: S311 - no secret
        start = chance.randrange(len(piece.body)) if manner is Manner.RANGE else 0
        wanted = piece.body[start:] if "/blobs/" in piece.path else piece.body
        range_field = f"Range: bytes={start}-\r\n" if manner is Manner.RANGE else ""
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {piece.accept}\r\n{range_field}\r\n".encode())
        status, fields = await _read_head(reader)
        length = int(fields.get("content-length", "-1"))
        if status in _OUTAGE:
            await self._refused(reader, target, status, length)
            return True
        if status == 307 and fields.get("location"):
            self.tally.counts["redirected"] += 1
            return True
        if status not in (200, 206) or length not in (len(wanted), len(piece.body)):
            self.tally.wrong(f"{target} ({manner}): {status} with {length} of {len(wanted)} bytes")
            return False
        if length == len(piece.body):
            wanted = piece.body
        stop = chance.randrange(length) if manner is Manner.ABORT else length
        if not await self._body(reader, wanted, stop, target, slow=manner is Manner.SLOW):
            return False
        self.tally.counts[manner.value] += 1
        return manner is not Manner.ABORT

    async def _body(self, reader: asyncio.StreamReader, wanted: bytes, stop: int, target: str, *, slow: bool) -> bool:
        """Read to `stop` and compare; return whether all was right."""
        view, position = memoryview(wanted), 0
        while position < stop:
            chunk = await asyncio.wait_for(reader.read(min(_CHUNK_BYTES, stop - position)), STALL_LIMIT_S)
            if not chunk:
                raise CutError(f"{position} of {len(wanted)} bytes")
            if view[position : position + len(chunk)] != chunk:
                self.tally.wrong(f"{target}: wrong bytes from {position} on")
                return False
            position += len(chunk)
            self.tally.received_bytes += len(chunk)
            if slow:
                await asyncio.sleep(_SLOW_PAUSE_S)
        return True

    async def _refused(self, reader: asyncio.StreamReader, target: str, status: int, length: int) -> None:
        """Take an error as long as it says what it is."""
        body = await asyncio.wait_for(reader.readexactly(max(length, 0)), STALL_LIMIT_S)
        try:
            code = json.loads(body)["errors"][0]["code"]
        except (ValueError, KeyError, IndexError, TypeError):
            code = "without a code"
        self.tally.counts[f"refused {status} {code}"] += 1
        is_withheld = status in (401, 403) and _NOT_SHOWN.encode() in body
        if not is_withheld and (code not in _CODES or status in (401, 403, 500)):
            self.tally.wrong(f"{target}: {status} {body[:100]!r}")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), STALL_LIMIT_S)
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), fields


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), STALL_LIMIT_S)
