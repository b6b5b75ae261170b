"""What the crash tests store: bodies that parent and child both know, and a loopback source that sends them slowly."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from regproxy.oci.digest import Digest

CAP_BYTES = 6 * 1024 * 1024
"""Less than all bodies together: there is always something to evict."""

_SIZES_BYTES = [0, 1, 4096, 5_000, 40_000, 100_000, 200_000, 350_000, 500_000, 700_000, 1_000_000, 1_300_000]
_PIECE_BYTES = 16 * 1024
_PAUSE_S = 0.001

BODIES = tuple(
    random.Random(f"{turn} {size_bytes}").randbytes(size_bytes)  # noqa: S311 - test content
    for turn in range(3)
    for size_bytes in (_SIZES_BYTES if turn == 0 else _SIZES_BYTES[1:])
)
DIGESTS = tuple(map(Digest.of, BODIES))
BODY_OF = dict(zip(DIGESTS, BODIES, strict=True))

MANIFESTS = tuple(b'{"schemaVersion": 2, "number": %d, "padding": "%s"}' % (n, b"." * n * 300) for n in range(12))


@contextlib.contextmanager
def source() -> Iterator[int]:
    """Yield the port where a line `<number> <offset>` is answered by that body from there on, then the end."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, ThreadPoolExecutor(8) as senders:
        accepting = threading.Thread(target=_accept, args=(listener, senders))
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket, senders: ThreadPoolExecutor) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            senders.submit(_send, connection)


def _send(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection, connection.makefile("rb") as asking:
        asked = asking.readline()
        if not asked.endswith(b"\n"):
            return  # killed before it asked
        number, offset = map(int, asked.split())
        for position in range(offset, len(BODIES[number]), _PIECE_BYTES):
            connection.sendall(BODIES[number][position : position + _PIECE_BYTES])
            time.sleep(_PAUSE_S)
