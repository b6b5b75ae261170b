"""What all peers have in common: where an instance lives, how clients reach it, and how it ends."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench import procfs
from bench.upstream import Door, Upstream
from lab.addresses import Address, AddressBlock
from lab.programs import Program

_STOP_LIMIT_S = 5.0
_FIRST_HOST = 4
_LAST_HOST = 60


@dataclass(frozen=True, slots=True)
class Target:
    """How a client reaches one door of the upstream through an instance, or without one."""

    scheme: str
    authority: str
    ca_file: Path
    proxy: Address | None = None

    def url(self, path: str) -> str:
        """Return the URL of a path of the registry."""
        return f"{self.scheme}://{self.authority}{path}"


class Addresses:
    """The addresses of the run that servers may listen on: given out, and taken back when they stopped."""

    def __init__(self, block: AddressBlock) -> None:
        self._free = [block.address(host) for host in range(_FIRST_HOST, _LAST_HOST)]

    def take(self) -> Address:
        """Return an address that nobody listens on; IndexError when all are taken."""
        return self._free.pop(0)

    def give_back(self, addresses: Iterable[Address]) -> None:
        """Take addresses back; they are given out last."""
        self._free.extend(addresses)


@dataclass(frozen=True, slots=True)
class Site:
    """Where an instance is set up: a new folder of its own, and the doors that it must reach."""

    directory: Path
    doors: tuple[Door, ...]
    upstream: Upstream
    addresses: Addresses


class Instance(Protocol):
    """One running peer with a cache of its own."""

    targets: Mapping[Door, Target]

    def pids(self) -> list[int]:
        """Return all its processes."""
        ...

    def close(self) -> None:
        """End it and what it started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One column of the table."""

    name: str
    start: Callable[[Site], Instance]
    caches: bool = True
    is_proxy: bool = True
    """False: there is nothing between client and upstream whose CPU time and memory could be read."""
    difference: str = ""
    """Where its set-up differs from what a user runs."""


class Programs:
    """An instance that consists of programs started by us."""

    def __init__(self, site: Site, targets: Mapping[Door, Target], programs: Iterable[Program]) -> None:
        self.targets = targets
        self._site = site
        self._programs = list(programs)
        self._listens_on: list[Address] = []

    def pids(self) -> list[int]:
        """Return all its processes."""
        return [pid for program in self._programs if program.is_running for pid in procfs.family(program.pid)]

    def close(self) -> None:
        """End it and what it started."""
        left = self.pids()
        for program in self._programs:
            program.stop(_STOP_LIMIT_S)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._site.addresses.give_back(self._listens_on)

    def start(self, listens_on: Iterable[Address] = ()) -> "Programs":
        """Start the programs; all are ended again when one does not start. `listens_on` is given back at the end."""
        self._listens_on = list(listens_on)
        try:
            for program in self._programs:
                program.start()
        except BaseException:
            self.close()
            raise
        return self


def through_forward_proxy(site: Site, proxy: Address, ca_file: Path) -> dict[Door, Target]:
    """Return targets by the upstream's names, through CONNECT or plain forwarding."""
    return {door: Target(door.scheme, door.authority, ca_file, proxy) for door in site.doors}


def instead_of_upstream(site: Site, addresses: Mapping[Door, Address]) -> dict[Door, Target]:
    """Return targets by address: a server that stands in the upstream's place, with a certificate of its CA."""
    ca_file = site.upstream.pki.ca_file
    return {door: Target(door.scheme, str(address), ca_file) for door, address in addresses.items()}
