"""A TCP relay that can stall: it takes connections and bytes, and passes nothing on until it is let."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

from lab.addresses import Address, free_port

_PIECE_BYTES = 64 * 1024
_POLL_S = 0.02
_UP = "up"
_DOWN = "down"


class Relay:
    """Relays to `target` while it is used as a context manager."""

    def __init__(self, target: Address) -> None:
        self.address = Address("127.0.0.1", free_port())
        self._target = target
        self._lock = threading.Lock()
        self._passed_bytes = {_UP: 0, _DOWN: 0}
        self._most_bytes: dict[str, int | None] = {_UP: None, _DOWN: None}
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self.address, backlog=64)
        self._start(self._accept, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._listener is not None
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for end in [*ends, self._listener]:
            end.close()

    def stall(self, *, up_bytes: int | None = None, down_bytes: int | None = None) -> None:
        """Let so many bytes more go to the target and come from it, then none; None is no limit."""
        with self._lock:
            self._passed_bytes = {_UP: 0, _DOWN: 0}
            self._most_bytes = {_UP: up_bytes, _DOWN: down_bytes}

    @property
    def sent_up_bytes(self) -> int:
        """What has gone to the target since the last `stall`."""
        with self._lock:
            return self._passed_bytes[_UP]

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                with self._lock:
                    self._ends += [near, far]
                with contextlib.suppress(OSError):
                    far.connect(self._target)
                    self._start(self._copy, near, far, _UP)
                    self._start(self._copy, far, near, _DOWN)
                    continue
                near.shutdown(socket.SHUT_RDWR)

    def _copy(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                while self._is_stalled(way, len(piece)):
                    if self._stopping.wait(_POLL_S):
                        return
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _is_stalled(self, way: str, count_bytes: int) -> bool:
        with self._lock:
            most_bytes = self._most_bytes[way]
            if most_bytes is not None and self._passed_bytes[way] + count_bytes > most_bytes:
                return True
            self._passed_bytes[way] += count_bytes
            return False

    def _start[**P](self, run: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        thread = threading.Thread(target=run, args=arguments, kwargs=named, daemon=True)
        self._threads.append(thread)
        thread.start()
