"""Response bodies that live in files.

mitmproxy holds a response's body as one `bytes`. A layer is hundreds of megabytes, so an addon that answers with a
file sets a response without content and attaches a `FileBody` to the flow; `http_layer.RegistryStream` sends the
headers and hands the body to `sender`.
"""

import os
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mitmproxy import http

type Released = Callable[[int], Awaitable[int]]
"""Waits until more than the given offset of the file may be sent, and returns the offset up to which it may."""


class FileBody:
    """Bytes `start` to `end` (exclusive) of an open file, which may still be growing.

    It owns the descriptor: `close` gives it back, and so does losing the last reference.
    """

    __slots__ = ("__weakref__", "_closer", "end", "fd", "released", "start")

    def __init__(self, fd: int, start: int, end: int, released: Released | None = None) -> None:
        self.fd = fd
        self.start = start
        self.end = end
        self.released = released
        """None for a complete file. May raise: then the connection is cut, for the bytes promised will not come."""
        self._closer = weakref.finalize(self, os.close, fd)

    @property
    def length_bytes(self) -> int:
        """How many bytes the client is promised."""
        return self.end - self.start

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        self._closer()


@dataclass(frozen=True, slots=True)
class Sent:
    """How an answer ended."""

    body_bytes: int
    """Handed to the client's socket (before encryption)."""
    error: str | None
    """Why the body did not reach its end, in words; None when it did."""


_attached: weakref.WeakKeyDictionary[http.HTTPFlow, FileBody] = weakref.WeakKeyDictionary()


def attach(flow: http.HTTPFlow, body: FileBody) -> None:
    """Make `body` what follows the response's headers; the response itself must have no content."""
    _attached[flow] = body


def attached(flow: http.HTTPFlow) -> FileBody | None:
    """Return the flow's file body, if its answer has one."""
    return _attached.get(flow)


def detach(flow: http.HTTPFlow) -> None:
    """Forget and close the flow's file body, if there is one."""
    body = _attached.pop(flow, None)
    if body is not None:
        body.close()
