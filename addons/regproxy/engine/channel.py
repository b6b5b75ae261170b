"""Moving bytes of a file into a client's socket, from a worker thread, until the socket would block.

The calls that cost (pread, SSL_write, send, sendfile) release the GIL, so several clients use several cores. A slow
client holds no thread: `push` returns as soon as the socket is full and the caller waits for it in the event loop.
"""

import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from OpenSSL import SSL

CHUNK_BYTES = 256 * 1024
"""One pread and one SSL_write for a client that keeps up; it costs the client's connection about 600 kB of memory."""

SLOW_CHUNK_BYTES = 32 * 1024
"""The same for a client that does not: 200 of them took 136 MiB with the large one, and are not served faster by it."""

FAST_BYTES_PER_S = 16 * 1024 * 1024
"""What a client must have taken since its last turn began to get the large chunk."""

BURST_BYTES = 8 * 1024 * 1024
"""A client that takes more without a pause gets it, too; less says nothing, the sockets' own buffers take it."""

TLS_OVERHEAD_BYTES = 16 * 1024
"""More than TLS adds to a chunk: 22 bytes (1.3) or 29 (1.2) for each record of 16 KiB."""

TURN_BYTES = 16 * 1024 * 1024
"""After this many bytes a fast client gives its thread to the next one that waits."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one `push` achieved."""

    position: int
    """Offset in the file of the next byte to send."""
    blocked: bool
    """True when the socket is full: wait until it is writable."""


class FileShrankError(Exception):
    """A stored file ended before the length the client was promised."""


class Channel(ABC):
    """A way into one client's socket. Used by one thread at a time."""

    def __init__(self, socket_fd: int) -> None:
        self.socket_fd = socket_fd
        """A non-blocking socket, owned by the caller."""

    @property
    @abstractmethod
    def has_unsent(self) -> bool:
        """True while bytes taken from the file have not all reached the socket."""

    @abstractmethod
    def push(self, fd: int, position: int, end: int) -> Pushed:
        """Send bytes `position` to `end` of file `fd`, until done, blocked or a turn is over.

        Raises OSError when the client has gone, `FileShrankError` when the file is shorter than `end`.
        """


class PlainChannel(Channel):
    """sendfile(2): the bytes never enter this process."""

    @property
    def has_unsent(self) -> bool:
        """Nothing is kept here."""
        return False

    def push(self, fd: int, position: int, end: int) -> Pushed:
        """See `Channel.push`."""
        turn_end = min(end, position + TURN_BYTES)
        while position < turn_end:
            try:
                sent = os.sendfile(self.socket_fd, fd, position, turn_end - position)
            except BlockingIOError:
                return Pushed(position, blocked=True)
            if sent == 0:
                raise FileShrankError(f"the stored file ends at {position}, before {end}")
            position += sent
        return Pushed(position, blocked=False)


class TlsChannel(Channel):
    """Encrypts with the client's own OpenSSL connection, which works on memory and is lent for the transfer."""

    def __init__(self, socket_fd: int, tls: SSL.Connection) -> None:
        super().__init__(socket_fd)
        self._tls = tls
        self._unsent = memoryview(b"")
        self._turn_began: tuple[int, float] | None = None

    @property
    def has_unsent(self) -> bool:
        """True while ciphertext waits for the socket."""
        return len(self._unsent) > 0

    def push(self, fd: int, position: int, end: int) -> Pushed:
        """See `Channel.push`."""
        large_from = position if self._is_fast(position) else position + BURST_BYTES
        turn_end = min(end, position + TURN_BYTES)
        while True:
            try:
                while self._unsent:
                    self._unsent = self._unsent[os.write(self.socket_fd, self._unsent) :]
            except BlockingIOError:
                return Pushed(position, blocked=True)
            if position >= turn_end:
                return Pushed(position, blocked=False)
            chunk_bytes = CHUNK_BYTES if position >= large_from else SLOW_CHUNK_BYTES
            plaintext = os.pread(fd, min(chunk_bytes, turn_end - position), position)
            if not plaintext:
                raise FileShrankError(f"the stored file ends at {position}, before {end}")
            self._tls.sendall(plaintext)
            position += len(plaintext)
            self._unsent = memoryview(self._tls.bio_read(CHUNK_BYTES + TLS_OVERHEAD_BYTES))

    def _is_fast(self, position: int) -> bool:
        """Judge the client by its last turn, the wait after it included; OpenSSL keeps the largest buffer it needed."""
        last, now_s = self._turn_began, time.monotonic()
        self._turn_began = (position, now_s)
        return last is not None and position - last[0] >= FAST_BYTES_PER_S * (now_s - last[1])
