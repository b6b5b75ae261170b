"""The connections of all workers: each writes down its own in memory that all share, and reads what the others have.

A table for each worker, with one writer: a count of all, and one for each client in a slot by the hash of its address.
It is looked into when a connection begins, in a few microseconds. Two workers that let somebody in at the same moment
may let in one more than the limit. A dead worker's table is emptied by the supervisor.
"""

import functools
import mmap
import os
from hashlib import blake2b
from typing import Self

from regproxy.engine.board import BOARD_WORDS, TABLE_SLOTS, TABLE_WORDS
from regproxy.engine.connection_count import ConnectionCount, ConnectionLimits

_WINDOW = 8
"""Slots that may be a client's; with more clients than that of neighbouring hashes, some count at one worker only."""

_MOST_ADDRESSES = 1024
"""Clients whose slots are remembered: to find them takes longer than all the rest."""


class ConnectionTables:
    """The tables of all workers, by their numbers from 1 on."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._workers = len(words) // TABLE_WORDS

    @classmethod
    def of_memory(cls, fd: int) -> Self:
        """Return the tables behind the words of the board; it stays mapped."""
        return cls(memoryview(mmap.mmap(fd, os.fstat(fd).st_size)).cast("Q")[BOARD_WORDS:])

    @classmethod
    def of(cls, workers: int) -> Self:
        """Return tables in this process's memory."""
        return cls(memoryview(bytearray(8 * TABLE_WORDS * workers)).cast("Q"))

    def total_elsewhere(self, own: int) -> int:
        """Return the connections of the other workers."""
        return sum(self._words[base] for base in self._others(own))

    def client_elsewhere(self, own: int, client_ip: str) -> int:
        """Return a client's connections at the other workers."""
        (key, slots), words, found = _key_and_slots(client_ip), self._words, 0
        for base in self._others(own):
            for slot in slots:
                if words[base + slot] == key:
                    found += words[base + slot + 1]
        return found

    def write_total(self, own: int, count: int) -> None:
        """Write down how many connections a worker has."""
        self._words[(own - 1) * TABLE_WORDS] = count

    def write_client(self, own: int, client_ip: str, count: int) -> None:
        """Write down how many of them a client has; without a free slot it is not known to others."""
        (key, slots), words, base, free = _key_and_slots(client_ip), self._words, (own - 1) * TABLE_WORDS, None
        for slot in slots:
            at = base + slot
            if not words[at + 1]:
                free = at if free is None else free
            elif words[at] == key:
                words[at + 1] = count
                return
        if free is not None:
            words[free], words[free + 1] = key, count

    def _others(self, own: int) -> list[int]:
        return [number * TABLE_WORDS for number in range(self._workers) if number != own - 1]


class CrewConnectionCount(ConnectionCount):
    """The open connections of one worker, whose limits are for all of them together.

    `own` is what this process has files for, `limits` what the operator allows.
    """

    def __init__(self, own: ConnectionLimits, limits: ConnectionLimits, tables: ConnectionTables, number: int) -> None:
        super().__init__(limits)
        self._most, self._tables, self._number = own.total, tables, number

    def _of_client(self, client_ip: str) -> int:
        return super()._of_client(client_ip) + self._tables.client_elsewhere(self._number, client_ip)

    def _is_full(self) -> bool:
        limit = self._limits.total
        here = self._total
        return bool(
            (self._most and here >= self._most)
            or (limit and here + self._tables.total_elsewhere(self._number) >= limit)
        )

    def _changed(self, client_ip: str) -> None:
        self._tables.write_total(self._number, self._total)
        self._tables.write_client(self._number, client_ip, self._open[client_ip])


@functools.lru_cache(_MOST_ADDRESSES)
def _key_and_slots(client_ip: str) -> tuple[int, tuple[int, ...]]:
    """Return what a client is called in a table, and where in one it may be."""
    key = int.from_bytes(blake2b(client_ip.encode(), digest_size=8).digest()) | 1
    first = (key >> 1) % TABLE_SLOTS
    return key, tuple(2 + 2 * ((first + step) % TABLE_SLOTS) for step in range(_WINDOW))
