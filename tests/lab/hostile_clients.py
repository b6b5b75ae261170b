"""Requests that no client of the field sends, and a bystander who must not notice them."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab.image import random_chunks
from lab.lab import Lab
from lab.proxy import Proxy
from lab.raw_http import connected, read_head, read_to_end, tunnelled

REGISTRY = "noauth.lab.test"
NAME = "hostile/clients"
CANARY = "canary/manifests/canary"
"""Asked for behind each hostile request: whoever answers it has read two requests."""


@dataclass(frozen=True, slots=True)
class Case:
    """A hostile request and what its client sees.

    In `sent`, `{host}` is the Host that the door wants, `{path}` the path of a stored blob, `{in}` what stands before a
    repository's name, `{digest}` the blob's.
    """

    name: str
    sent: str
    status: int
    ends: bool = True
    """Whether the connection ends with the answer, so that what follows is not read as a request."""


class Target:
    """A proxy with one blob at hand; what it is asked goes by one of its doors."""

    def __init__(self, lab: Lab, proxy: Proxy) -> None:
        self.proxy = proxy
        self.body = b"".join(random_chunks("hostile clients", 200_000))
        self.digest = lab.storage.add_blob(NAME, [self.body])
        self.log = lab.noauth.log
        assert proxy.client().get(f"https://{REGISTRY}/v2/{NAME}/blobs/{self.digest}").body == self.body

    @contextlib.contextmanager
    def connection(self, door: str, *, handed_over: bool = False) -> Iterator["Talk"]:
        """Yield a connection by the proxy door or the mirror door, which mitmproxy has taken over if that is wanted."""
        with contextlib.ExitStack() as cleanup:
            address = self.proxy.address
            if door == "proxy":
                tls = cleanup.enter_context(tunnelled(address, f"{REGISTRY}:443", self.proxy.ca_file))
                talk = Talk(self, REGISTRY, "/v2/", tls.sendall, tls)
            else:
                plain = cleanup.enter_context(connected(address))
                talk = Talk(self, str(address), f"/v2/{REGISTRY}/", plain.sendall, plain)
            if handed_over:
                talk.send(f"GET {talk.prefix}{NAME}/manifests/absent HTTP/1.1\r\nHost: {talk.host}\r\n\r\n".encode())
                read_answer(talk.socket)
            yield talk


class Talk:
    """One connection by one door."""

    def __init__(
        self, target: Target, host: str, prefix: str, send: Callable[[bytes], None], connection: socket.socket
    ) -> None:
        self.host = host
        self.prefix = prefix
        self.send = send
        self.socket = connection
        self._target = target

    def written(self, text: str) -> bytes:
        """Return a case's bytes for this door."""
        digest = self._target.digest
        values = {
            "host": self.host,
            "in": self.prefix,
            "digest": digest,
            "path": f"{self.prefix}{NAME}/blobs/{digest}",
        }
        for key, value in values.items():
            text = text.replace(f"{{{key}}}", value)
        return text.encode("latin-1")

    def statuses(self, text: str) -> list[int]:
        """Send a case and a canary, and return the statuses of all answers until the connection ends."""
        canary = f"GET {self.prefix}{CANARY} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.send(self.written(text) + canary)
        return statuses_in(read_to_end(self.socket))

    def blob(self) -> bytes:
        """Return the stored blob."""
        self.send(self.written("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        return read_answer(self.socket)


def statuses_in(received: bytes) -> list[int]:
    """Return the statuses of the answers in what was received."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def read_answer(connection: socket.socket) -> bytes:
    """Return the body of one answer, which says its length."""
    head = read_head(connection)
    (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = bytearray()
    while len(body) < length:
        piece = connection.recv(length - len(body))
        assert piece, f"the connection ended within an answer: {head!r}"
        body += piece
    return bytes(body)
