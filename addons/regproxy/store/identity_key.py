"""The key with which logins are hashed: 32 random bytes in the store's directory, made once.

It lives with what it protects: without it, what is known of clients is of no use, and with a new one it is forgotten.
"""

import contextlib
import os
import secrets
from pathlib import Path

from regproxy.store.errors import StoreError
from regproxy.store.layout import FILE_MODE

KEY_BYTES = 32


def read_or_make(path: Path) -> bytes:
    """Return the key. Blocks; StoreError says what to do. A file of another size is replaced."""
    try:
        with contextlib.suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key
        key = secrets.token_bytes(KEY_BYTES)
        scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        fd = os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, FILE_MODE)
        try:
            os.write(fd, key)
            os.fsync(fd)
        finally:
            os.close(fd)
        scratch.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read or written ({error.strerror}): check the owner of the cache directory"
        ) from error
    return key
