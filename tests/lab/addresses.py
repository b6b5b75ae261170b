"""Which loopback address a lab server gets, and which port a program that a test starts.

One process of the tests claims a 127.0.x.0/24 block and a share of 127.0.0.1's ports by holding a listening socket in
each; another one on the same machine, a worker or a second run, finds them taken and tries the next. Inside a block
every server has an address of its own, so ports never collide and a stopped server finds its port free when it starts
again. All these ports are below the ephemeral range, so no outgoing connection takes one.
"""

import contextlib
import errno
import itertools
import random
import socket
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

TLS_PORT = 8443
"""Port of every TLS server of the lab."""

BACKEND_PORT = 5000
"""Port of a docker-registry behind its front, plain HTTP."""

_CLAIM_HOST = 254
_LARGEST_HOST = 60

_FIRST_PORT = 10_000
_END_PORT = 30_000
"""Node ports of Kubernetes are from here on, the ephemeral range from 32768 (ip(7), ip_local_port_range)."""
_SHARE_PORTS = 100


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
        """Return a block that no other run holds and no server of a killed run is left in; OSError without one."""
        for third_octet in random.sample(range(2, 250), 248):
            claim = _listen(Address(f"127.0.{third_octet}.{_CLAIM_HOST}", TLS_PORT))
            if claim is None:
                continue
            block = cls(third_octet, claim)
            if block.is_empty:
                return block
            block.release()
        raise OSError("every 127.0.x.0/24 block is taken by another run of the lab")

    @property
    def is_empty(self) -> bool:
        """Whether nothing but our claim listens in it (proc_pid_net(5), tcp; state 0A is LISTEN)."""
        ours = (127, 0, self._third_octet)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            *network, host = int(local.partition(":")[0], 16).to_bytes(4, sys.byteorder)
            if state == "0A" and (*network,) == ours and host != _CLAIM_HOST:
                return False
        return True

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


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on and that no other process of the tests will be given.

    The ports of a share come in turn, so one that was given is not given again soon. OSError when none is free.
    """
    ports = _ports_in_turn()
    for _ in range(_SHARE_PORTS):
        port = next(ports)
        if _is_free(Address("127.0.0.1", port)):
            return port
    raise OSError(f"none of the {_SHARE_PORTS} ports up to {port} of 127.0.0.1 is free: end what listens there")


@cache
def _ports_in_turn() -> Iterator[int]:
    first, claim = _claimed_share()

    def turn() -> Iterator[int]:
        with claim:
            yield from itertools.cycle(range(first + 1, first + _SHARE_PORTS))

    return turn()


def _claimed_share() -> tuple[int, socket.socket]:
    """Return the first port of a share and what holds it for as long as this process lives."""
    firsts = range(_FIRST_PORT, _END_PORT - _SHARE_PORTS, _SHARE_PORTS)
    for first in random.sample(firsts, len(firsts)):
        claim = _listen(Address("127.0.0.1", first))
        if claim is not None:
            return first, claim
    raise OSError(f"all ports of 127.0.0.1 from {_FIRST_PORT} to {_END_PORT} are taken by other runs of the tests")


def _listen(address: Address) -> socket.socket | None:
    """Return a listening socket, None where another one listens."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(address)
        listener.listen(1)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return listener


def _is_free(address: Address) -> bool:
    """Return whether a server could listen there, which past connections do not hinder."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return True
    return False
