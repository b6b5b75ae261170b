"""What stands in a dead upstream's place: it takes connections, counts them, and says nothing."""

import contextlib
import socket
import threading
from typing import Self

from lab.addresses import Address


class SilentServer:
    """Listens as a context manager; every connection stays open until the end."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._taken: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self._address, backlog=256)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._listener is not None
        assert self._acceptor is not None
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        self._acceptor.join()
        self._listener.close()
        for connection in self._taken:
            connection.close()

    @property
    def connections(self) -> int:
        """How many have come so far."""
        with self._lock:
            return len(self._taken)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with self._lock:
                    self._taken.append(connection)
