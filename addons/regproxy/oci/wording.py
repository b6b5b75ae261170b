"""How text from outside is shown in an error message.

A name, a header or a URL may be megabytes long and hold control characters; a message is one line that a person reads.
This module does not hide secrets: never pass one.
"""

MAX_SHOWN_CHARACTERS = 120
"""Enough for the longest tag and most names; a digest of sha512 is cut."""


def shown(text: str) -> str:
    """Quote text for an error message: control characters escaped, length bounded."""
    return repr(text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "...")
