"""A TCP relay that can stall: it takes connections and bytes, and passes nothing on until it is let."""

import contextlib
import socket
import threading
from typing import Self

from lab.addresses import Address, free_port

_PIECE_BYTES = 64 * 1024
_POLL_S = 0.02


class Relay:
    """Relays to `target` while it is used as a context manager."""

    def __init__(self, target: Address) -> None:
        self.address = Address("127.0.0.1", free_port())
        self.stall_after_bytes: int | None = None
        """Of what the target sends, over all connections from now on; None for no stall, 0 for at once."""
        self._target = target
        self._lock = threading.Lock()
        self._passed_bytes = 0
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

    def stall_after(self, count_bytes: int | None) -> None:
        """Let so many bytes more come from the target, then nothing; None lets all of it come."""
        with self._lock:
            self._passed_bytes, self.stall_after_bytes = 0, count_bytes

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                with self._lock:
                    self._ends += [near, far]
                with contextlib.suppress(OSError):
                    far.connect(self._target)
                    self._start(self._copy, near, far, False)
                    self._start(self._copy, far, near, True)
                    continue
                near.shutdown(socket.SHUT_RDWR)

    def _copy(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                while is_answer and self._is_stalled(len(piece)):
                    if self._stopping.wait(_POLL_S):
                        return
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _is_stalled(self, count_bytes: int) -> bool:
        with self._lock:
            if self.stall_after_bytes is not None and self._passed_bytes + count_bytes > self.stall_after_bytes:
                return True
            self._passed_bytes += count_bytes
            return False

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type] # one of ours
        self._threads.append(thread)
        thread.start()
