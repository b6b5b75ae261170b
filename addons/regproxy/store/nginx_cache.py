"""Files of an nginx cache, as the predecessors left them: the head of one file, and what its key names.

Layout, by nginx's ngx_http_file_cache_header_t of version 5 (64 bit, little endian): the struct below, a line
`KEY: <key>`, the stored answer's head from `header_start`, its body from `body_start` to the end. The file of a key
with MD5 `...abc` is `c/ab/...abc` (levels=1:2). The reference's key is `$uri`, without the host: what it names can be
trusted only when it is a digest, and only after hashing. coreweave's and gmarcy's proxies cut content into slices, a
file each, with `bytes=<first>-<last>` at the end of the key.

Pure but for `folders_of` and `files_below`. Not decided here: what is taken in.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Blob, EndpointError, Manifest, parse_endpoint
from regproxy.oci.wording import shown

VERSION = 5
"""Of the file format; nginx itself throws files of another version away."""

FIRST_BYTES = 4096
"""Enough for every key that names content: a repository name has at most 255 characters."""

_HEADER = struct.Struct("<QqqqqqIHHHB128sB128s16s")
_HEADER_BYTES = 336
"""The struct's size in C, which has four bytes of padding at its end."""

_STORAGE_PATH = re.compile(r"/blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})/data")
"""How the storage behind Docker Hub and others names a blob; tiangolo's proxy cached it under that name."""

_SLICE = re.compile(r"bytes=([0-9]{1,18})-[0-9]{1,18}")
_BARE_BLOB = re.compile(r"GET([0-9a-f]{64})")
"""gmarcy's key for a blob."""

_KEY_LINE = b"\nKEY: "
_FILE = re.compile(r"[0-9a-f]{29}([0-9a-f]{2})([0-9a-f])")
_CONTENT_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class NginxCacheError(ValueError):
    """Not a file of an nginx cache that we can read; the text says why."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """The head of one cache file."""

    key: str
    """What nginx stored it under; bytes that are not UTF-8 are replaced."""

    head_start: int
    """Offset of the stored answer's status line, in bytes."""

    body_start: int
    """Offset of the stored answer's body, in bytes."""


def parse_answer(first_bytes: bytes) -> CachedAnswer:
    """Read the beginning of a cache file, FIRST_BYTES of it or all. Raises NginxCacheError, and nothing else."""
    if len(first_bytes) < _HEADER_BYTES:
        raise NginxCacheError(f"{len(first_bytes)} bytes are no nginx cache file")
    fields = _HEADER.unpack_from(first_bytes)
    version, key_crc32, head_start, body_start = fields[0], fields[6], fields[8], fields[9]
    if version != VERSION:
        raise NginxCacheError(f"version {version} of nginx's cache format, only {VERSION} is read")
    if body_start < head_start:
        raise NginxCacheError(f"the body starts at {body_start}, before the head at {head_start}")
    key_start = _HEADER_BYTES + len(_KEY_LINE)
    line = first_bytes[_HEADER_BYTES:head_start]
    if head_start > len(first_bytes) or not line.startswith(_KEY_LINE) or not line.endswith(b"\n", len(_KEY_LINE)):
        raise NginxCacheError("no KEY line where nginx writes it, or too long a key")
    key = first_bytes[key_start : head_start - 1]
    if zlib.crc32(key) != key_crc32:
        raise NginxCacheError(f"the key {shown(key.decode('utf-8', 'replace'))} is damaged")
    return CachedAnswer(key.decode("utf-8", "replace"), head_start, body_start)


def content_type(head: bytes) -> str:
    """Return the Content-Type field of a stored answer's head, "" when it has none."""
    found = _CONTENT_TYPE.search(head)
    return "" if found is None else found[1].decode("latin-1")


def named_content(key: str) -> tuple[Digest, bool] | None:
    """Return the digest that a key names and whether it names a manifest; None for everything without a digest.

    The key is `$uri`, tiangolo's `$proxy_host$uri`, or one of gmarcy's that start with the method, without its slice.
    """
    bare = _BARE_BLOB.fullmatch(key)
    if bare is not None:
        return Digest("sha256", bare[1]), False
    path = key[max(0, key.find("/")) :]
    stored = _STORAGE_PATH.search(path)
    if stored is not None and stored.end() == len(path):
        return Digest("sha256", stored[2]), False
    try:
        endpoint = parse_endpoint("GET", path)
    except EndpointError:
        return None
    match endpoint:
        case Blob(_, digest):
            return digest, False
        case Manifest(_, Digest() as digest):
            return digest, True
        case _:
            return None


def split_slice(key: str) -> tuple[str, int]:
    """Return a key without its slice, and the slice's offset in bytes; 0 for a key without one."""
    start = key.rfind("bytes=")
    found = _SLICE.fullmatch(key, start) if start > 0 else None
    return (key, 0) if found is None else (key[:start], int(found[1]))


def folders_of(directory: Path) -> list[Path]:
    """Return the folders `X/YY` of a cache with levels=1:2, which also hold nothing but such folders. Raises OSError.

    A folder `X` that cannot be listed is returned itself, so that the caller meets the error where it counts files.
    """
    folders: list[Path] = []
    for first in _subfolders(directory, 1):
        try:
            folders += _subfolders(first, 2)
        except OSError:
            folders.append(first)
    return folders


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the cache files of one folder `X/YY`; unfinished and strange files are passed over. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = _FILE.fullmatch(entry.name)
            if name is not None and (name[2], name[1]) == folder.parts[-2:] and entry.is_file(follow_symlinks=False):
                yield entry


def _subfolders(directory: Path, length: int) -> list[Path]:
    name = re.compile(f"[0-9a-f]{{{length}}}")
    with os.scandir(directory) as entries:
        return sorted(
            Path(entry.path) for entry in entries if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )
