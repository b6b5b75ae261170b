"""A proxy that only tunnels: CONNECT by name to the lab's addresses, nothing else.

What a client gets through it is what it gets without our proxy: the measure that pulls through ours are compared with.
"""

import contextlib
import selectors
import socket
import socketserver
import threading
from collections.abc import Mapping
from typing import Self

from lab.addresses import Address

_PIECE_BYTES = 64 * 1024
_SELECT_LIMIT_S = 0.2


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    # threads are joined by server_close, and end soon after `stopping` is set
    daemon_threads = False
    block_on_close = True

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.addresses = addresses
        self.connects: list[str] = []
        self.stopping = threading.Event()


class _Tunnel(socketserver.StreamRequestHandler):
    server: _Server
    rbufsize = 0

    def handle(self) -> None:
        request_line = self.rfile.readline().decode("latin-1")
        while self.rfile.readline() not in {b"\r\n", b"\n", b""}:
            pass
        method, target, _ = request_line.split(" ")
        name = target.rpartition(":")[0]
        self.server.connects.append(target)
        if method != "CONNECT" or name not in self.server.addresses:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            upstream = socket.create_connection(self.server.addresses[name], timeout=5)
        except OSError:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with upstream, contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._relay(upstream)

    def _relay(self, upstream: socket.socket) -> None:
        other_end = {self.connection: upstream, upstream: self.connection}
        with selectors.DefaultSelector() as selector:
            for end, other in other_end.items():
                selector.register(end, selectors.EVENT_READ, other)
            while not self.server.stopping.is_set():
                for ready, _ in selector.select(_SELECT_LIMIT_S):
                    source = ready.fileobj
                    assert isinstance(source, socket.socket)
                    piece = source.recv(_PIECE_BYTES)
                    if not piece:
                        return
                    ready.data.sendall(piece)


class BlindProxy:
    """Runs while it is used as a context manager."""

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        self._server = _Server(addresses)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("127.0.0.1", int(self._server.server_address[1]))

    @property
    def connects(self) -> list[str]:
        """The `name:port` of every CONNECT so far."""
        return list(self._server.connects)
