"""Which loopback address a lab server gets.

One run of the lab claims a 127.0.x.0/24 block by holding a listening socket in it; a second run on the same machine
finds the block taken and tries another. Inside a block every server has an address of its own, so ports never collide
and a stopped server finds its port free when it starts again.
"""

import contextlib
import random
import socket
from typing import NamedTuple, Self

TLS_PORT = 8443
"""Port of every TLS server of the lab. Below the ephemeral range, so no outgoing connection takes it."""

BACKEND_PORT = 5000
"""Port of a docker-registry behind its front, plain HTTP."""

_CLAIM_HOST = 254
_LARGEST_HOST = 60


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class AddressBlock:
    """127.0.x.1 to 127.0.x.60, ours until `release`."""

    def __init__(self, third_octet: int, claim: socket.socket) -> None:
        self._third_octet = third_octet
        self._claim = claim

    @classmethod
    def claim(cls) -> Self:
        """Return a block that no other run holds; OSError when all are taken."""
        for third_octet in random.sample(range(2, 250), 248):
            claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            with contextlib.suppress(OSError):
                claim.bind((f"127.0.{third_octet}.{_CLAIM_HOST}", TLS_PORT))
                claim.listen(1)
                return cls(third_octet, claim)
            claim.close()
        raise OSError("every 127.0.x.0/24 block is taken by another run of the lab")

    def address(self, last_octet: int, port: int = TLS_PORT) -> Address:
        """Return the address of the server numbered `last_octet`, 1 to 60."""
        if not 1 <= last_octet <= _LARGEST_HOST:
            raise ValueError(f"the lab has addresses 1 to {_LARGEST_HOST}, not {last_octet}")
        return Address(f"127.0.{self._third_octet}.{last_octet}", port)

    def hosts(self) -> list[str]:
        """Return every address of the block, for the certificate."""
        return [f"127.0.{self._third_octet}.{last_octet}" for last_octet in range(1, _LARGEST_HOST + 1)]

    def release(self) -> None:
        """Let others take the block."""
        self._claim.close()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    if not isinstance(port, int):
        raise TypeError(f"the kernel named {port!r} as a port")
    return port
