"""A name server that says what a test tells it: addresses of a name, other ones at each question."""

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Self

_HEADER_BYTES = 12
_TYPE_A = 1
_NO_SUCH_NAME = 3


class NameServer:
    """UDP on port 53 of `host`, as a context manager. Each name has its answers in turn; the last one stays."""

    def __init__(self, host: str, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(turns) for name, turns in answers.items()}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._questions: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        host, port = self._socket.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (host, port))
        self._thread.join()
        self._socket.close()

    def questions(self, name: str) -> int:
        """Return how often the addresses of a name were asked for."""
        return self._questions.count(name)

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            if not question:
                return
            with contextlib.suppress(OSError):
                self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        """Return the answer to one question (RFC 1035 section 4)."""
        labels, position = [], _HEADER_BYTES
        while length := question[position]:
            labels.append(question[position + 1 : position + 1 + length].decode())
            position += length + 1
        asked = question[_HEADER_BYTES : position + 5]
        (kind,) = struct.unpack_from("!H", question, position + 1)
        name = ".".join(labels).lower()
        addresses = self._next(name) if kind == _TYPE_A else ()
        status = 0 if name in self._answers else _NO_SUCH_NAME
        header = struct.pack("!2sHHHHH", question[:2], 0x8180 | status, 1, len(addresses), 0, 0)
        records = (
            struct.pack("!HHHIH4s", 0xC00C, _TYPE_A, 1, 0, 4, ipaddress.IPv4Address(address).packed)
            for address in addresses
        )
        return b"".join([header, asked, *records])

    def _next(self, name: str) -> Sequence[str]:
        turns = self._answers.get(name, [()])
        self._questions.append(name)
        return turns.pop(0) if len(turns) > 1 else turns[0]
