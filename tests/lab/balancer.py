"""A small load balancer, as a Service of Kubernetes is one: each new connection goes to a member that is ready.

A member that refuses the connection is passed over. What runs goes on, also to a member that is none any more.
"""

import contextlib
import http.client
import itertools
import socket
import threading
from collections.abc import Sequence
from typing import Self

from lab.addresses import Address, free_port

_PIECE_BYTES = 64 * 1024
_LOOK_S = 0.1
_LIMIT_S = 5.0


class Balancer:
    """Balances while it is used as a context manager."""

    def __init__(self) -> None:
        self.address = Address("127.0.0.1", free_port())
        self._members: tuple[Address, ...] = ()
        self._ready: frozenset[Address] = frozenset()
        self._turn = itertools.count()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self.address, backlog=64)
        self._start(self._accept, self._listener)
        self._start(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._listener is not None
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def serve(self, members: Sequence[Address]) -> None:
        """Send new connections to these, as far as they are ready, from now on."""
        self._ready = frozenset(member for member in members if _is_ready(member))
        self._members = tuple(members)

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            self._ready = frozenset(member for member in self._members if _is_ready(member))

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._start(self._relay, client)

    def _relay(self, client: socket.socket) -> None:
        with client:
            member = self._connect()
            if member is None:
                return
            with member:
                up = threading.Thread(target=_copy, args=(client, member), daemon=True)
                up.start()
                _copy(member, client)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                up.join()

    def _connect(self) -> socket.socket | None:
        members, turn = self._members, next(self._turn)
        for number in range(len(members)):
            member = members[(turn + number) % len(members)]
            if member in self._ready:
                with contextlib.suppress(OSError):
                    return socket.create_connection(member, timeout=None)
        return None

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until the source ends, and say so."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _is_ready(member: Address) -> bool:
    connection = http.client.HTTPConnection(*member, timeout=_LIMIT_S)
    try:
        connection.request("GET", "/readyz")
        with connection.getresponse() as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
