"""Whether what a worker remembers still counts: words of memory that all workers share.

What is remembered is kept with the stamp of its key from before it was read. A worker that changes a record writes it
to the index first and changes the stamp then, before it tells anybody; so after that no worker serves the old record
from its memory. Two loads and a comparison: cheap enough for a warm read. Keys share stamps by their hash, and one word
stands for all: the supervisor changes it when a worker has died, which may have been between the two steps.
"""

import mmap
import os
import zlib
from typing import Self

EPOCH = 0
ROOM = 1
"""Changed with the accounts of what the cache takes."""
FORGOTTEN_TAGS = 2
DOUBTED_FROM, DOUBTED_UNTIL = 3, 4
"""Unix times in seconds: content that was written between them may be broken (`recovery`); 0 for none."""
LOOKED_AT_EPOCH = 5
"""The stamp of `LOST` from before was last looked for what workers have left. Written by the housekeeper only."""
NOT_FOUND = 6
"""Changed with every write that a worker has let through."""
PINS = 7
"""Changed with the pins."""
_SECRET = range(8, 16)
INDEX_DEVICE, INDEX_INODE = 16, 17
"""Which file the index is: who has another one open closes it and opens this one."""
CLOCK_OFFSET = 18
"""By how many milliseconds the wall clock, as the index's times have it, is ahead of the machine's monotonic one."""
RESTING_UNTIL = 19
"""Until when no download is stored after the disk has failed one, in milliseconds of the monotonic clock."""
LOST = 20
"""Changed by a worker that lost rows of the index, or could not close it: there is something to look for."""
_FIRST_OF_KEYS = 64
_BOARD_WORDS = 64 * 1024 + 64
"""What of the shared memory is stamps; behind it are other things (`engine.board`)."""


class Stamps:
    """The words, by number or by key. For any thread."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._keys = len(words) - _FIRST_OF_KEYS

    @classmethod
    def of_memory(cls, fd: int) -> Self:
        """Return the stamps in an open file that all workers have; it stays mapped."""
        return cls(memoryview(mmap.mmap(fd, 0)).cast("Q")[:_BOARD_WORDS])

    @classmethod
    def of_one(cls) -> Self:
        """Return stamps that nobody else has."""
        return cls(memoryview(bytearray(8 * 1024)).cast("Q"))

    def number(self, *key: str) -> int:
        """Return the number of a key's word."""
        return _FIRST_OF_KEYS + zlib.crc32("\0".join(key).encode("utf-8", "surrogateescape")) % self._keys

    def current(self, number: int) -> int:
        """Return a stamp; it is another one after every change."""
        return self._words[EPOCH] ^ self._words[number]

    def change(self, number: int) -> None:
        """Make what is remembered with the current stamp count no more."""
        self._words[number] = int.from_bytes(os.urandom(8))

    def secret(self) -> bytes:
        """Return a key that the workers of one start have in common."""
        return b"".join(self._words[number].to_bytes(8) for number in _SECRET)

    def word(self, number: int) -> int:
        """Return a word that is a number of its own."""
        return self._words[number]

    def set_word(self, number: int, value: int) -> None:
        """Set a word that is a number of its own."""
        self._words[number] = value
