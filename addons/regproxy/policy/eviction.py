"""Which entries leave the store when it is over its cap.

The plan only: the caller lists entries in order of last use, oldest first, leaves out what must stay, and removes what
is named here.
"""

from collections.abc import Iterable


def choose_victims[Key](entries: Iterable[tuple[Key, int]], excess_bytes: int) -> list[Key]:
    """Return the fewest oldest entries that free at least `excess_bytes`; all of them when they do not suffice.

    `entries` are (key, size in bytes), oldest use first; the iterable is read no further than needed. An entry without
    bytes is never a victim, for nothing is gained by it.
    """
    victims: list[Key] = []
    if excess_bytes <= 0:
        return victims
    for key, size_bytes in entries:
        if size_bytes <= 0:
            continue
        victims.append(key)
        excess_bytes -= size_bytes
        if excess_bytes <= 0:
            break
    return victims
