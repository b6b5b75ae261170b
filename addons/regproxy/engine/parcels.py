"""What is too long for a message between workers: memory of one process that the other reads by its descriptor.

No file is written, so nothing is left behind and no disk can be full; it goes with whoever made it.
"""

import asyncio
import base64
import os
from typing import Any

_INLINE_BYTES = 16 * 1024
_KEPT_S = 30.0


def wrap(body: bytes) -> list[Any]:
    """Return what to say in a message; long ones are kept for half a minute. For the event loop. Raises OSError."""
    if len(body) <= _INLINE_BYTES:
        return [base64.b64encode(body).decode()]
    fd = os.memfd_create("registry-proxy-parcel", os.MFD_CLOEXEC)
    asyncio.get_running_loop().call_later(_KEPT_S, os.close, fd)
    with open(fd, "wb", closefd=False) as memory:
        memory.write(body)
    return [os.getpid(), fd]


def unwrap(told: list[Any]) -> bytes:
    """Return the body. Raises OSError when its maker has died."""
    match told:
        case [str(text)]:
            return base64.b64decode(text)
        case [int(pid), int(fd)]:
            with open(f"/proc/{pid}/fd/{fd}", "rb") as memory:  # noqa: PTH123 - the kernel's way to a descriptor
                return memory.read()
        case _:
            raise OSError(f"no parcel: {told!r}"[:100])
