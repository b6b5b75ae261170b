"""How the memory that all workers share is divided. The supervisor makes it; it knows no more of what is in it.

First words about all and stamps of keys (`store.crew.stamps`), then a table of connections for each worker
(`engine.connection_tables`).
"""

WORD_BYTES = 8

BOARD_WORDS = 64 * 1024 + 64
"""64 words for what is about all, and as many as there are hashes of keys."""

SECRET_OFFSET, SECRET_BYTES = 64, 64
"""A key by which workers name to one another what must not be said."""

EPOCH_OFFSET = 0
"""The word that every worker's memory is measured by: when it changes, nothing that is remembered counts."""

TABLE_SLOTS = 8192
TABLE_WORDS = 2 + 2 * TABLE_SLOTS
"""A count, a word that is free, and a key and a count for each slot: 128 KiB of which the kernel gives what is used."""


def board_bytes(workers: int) -> int:
    """Return the size of the memory for so many workers."""
    return WORD_BYTES * (BOARD_WORDS + workers * TABLE_WORDS)


def table_offset(worker: int) -> int:
    """Return where the table of a worker begins, which has a number from 1 on."""
    return WORD_BYTES * (BOARD_WORDS + (worker - 1) * TABLE_WORDS)
