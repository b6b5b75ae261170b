"""The network half of the scripted origin: HTTP/1.1 over TLS, blocking sockets, a thread for each connection.

It reads heads and writes bodies; what is answered is decided elsewhere. Blocking sends are what makes it exact: a part
that was sent is with the kernel, so a cut comes right behind it. A cut connection gets neither a TLS close alert nor
the end of its body, as when a server dies.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO

from lab.addresses import Address
from lab.pki import Pki
from lab.programs import LabError

_POLL_S = 0.01
_STEPS_PER_S = 20


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and fields; names are lower case."""

    method: str
    target: str
    fields: Mapping[str, str]


class Writer:
    """Sends one connection's answers; OSError when the client has gone or the server is stopped."""

    def __init__(self, connection: ssl.SSLSocket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    def send_head(self, status: int, fields: Mapping[str, str]) -> None:
        """Send status line and fields."""
        reason = HTTPStatus(status).phrase
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {text}" for name, text in fields.items()), "", ""]
        self._connection.sendall("\r\n".join(lines).encode())

    def send_body(self, part: bytes, *, chunked: bool, rate_bytes_per_s: int | None) -> None:
        """Send a part of the body, not faster than the rate."""
        step_bytes = max(1, len(part) if rate_bytes_per_s is None else rate_bytes_per_s // _STEPS_PER_S)
        for position in range(0, len(part), step_bytes):
            step = part[position : position + step_bytes]
            self._connection.sendall(b"%x\r\n%b\r\n" % (len(step), step) if chunked else step)
            if rate_bytes_per_s is not None and self._stopping.wait(len(step) / rate_bytes_per_s):
                raise ConnectionAbortedError("the server was stopped")

    def send_last_chunk(self) -> None:
        """End a chunked body."""
        self._connection.sendall(b"0\r\n\r\n")

    def send_raw(self, text: bytes) -> None:
        """Send bytes as they are, whatever they mean."""
        self._connection.sendall(text)

    def reset(self) -> None:
        """Let the connection end with a TCP reset, when it is closed next."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def pause(self, seconds: float) -> None:
        """Say nothing for a while."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError("the server was stopped")

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Return when a condition holds that another thread changes."""
        while not is_true():
            if self._stopping.wait(_POLL_S):
                raise ConnectionAbortedError("the server was stopped")


type Answer = Callable[[Head, Writer], bool]


class TlsServer:
    """Calls `answer` for each request, in the connection's thread, and closes when that returns False."""

    def __init__(self, address: Address, pki: Pki, answer: Answer) -> None:
        self._address = address
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pki.certificate_file, pki.key_file)
        self._answer = answer
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, ssl.SSLSocket] = {}

    def start(self) -> None:
        """Listen; LabError when the address is taken. Does nothing when it runs."""
        if self._listener is not None:
            return
        try:
            self._listener = socket.create_server(self._address, backlog=256)
        except OSError as error:
            raise LabError(f"no scripted server on {self._address}: {error}") from error
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Cut all connections, refuse new ones and return when the threads have ended."""
        if self._listener is None or self._acceptor is None:
            return
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        self._acceptor.join()
        self._listener.close()
        self._listener = None
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            # the plain method: SSLSocket's own forgets its TLS state, and a send would go on in clear text
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in connections:
            thread.join()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                thread = threading.Thread(target=self._serve_connection, args=(connection,), daemon=True)
                with self._lock:
                    self._connections[thread] = connection
                thread.start()

    def _serve_connection(self, connection: ssl.SSLSocket) -> None:
        writer = Writer(connection, self._stopping)
        with connection, contextlib.suppress(OSError):
            connection.do_handshake()
            with connection.makefile("rb") as reader:
                while (head := _read_head(reader)) is not None and self._answer(head, writer):
                    pass
        with self._lock:
            del self._connections[threading.current_thread()]


def _read_head(reader: BinaryIO) -> Head | None:
    """Return the next request's head after reading its body too, None at the end of the connection."""
    request_line = reader.readline().decode("latin-1")
    if not request_line:
        return None
    method, target, _ = request_line.split(" ")
    fields: dict[str, str] = {}
    while line := reader.readline().decode("latin-1").rstrip("\r\n"):
        name, _, text = line.partition(":")
        fields[name.lower()] = text.strip()
    reader.read(int(fields.get("content-length", "0")))
    return Head(method, target, fields)
