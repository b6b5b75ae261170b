"""OCI image layouts (image-spec 1.1, image-layout.md) as they are found: a directory, or a tar of one.

What others made is read in place and never unpacked. Names are made from digests, whose grammar leaves no room for a
path; what is no plain file is refused, and so is what would be larger than it looks.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, Self, cast

from regproxy.cli.api import ApiError
from regproxy.oci.digest import Digest

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
"""As much as a registry takes (distribution-spec 1.1, "Pushing Manifests"), and the proxy."""

MOST_MEMBERS = 100_000
_HEADER_LIMIT_BYTES = 1024 * 1024
"""Of the headers that tarfile reads into memory: long names and PAX fields."""

_LONG_HEADERS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class LayoutError(ApiError):
    """It is no layout, or not one that may be read."""


class Layout(Protocol):
    """Where the files of a layout are read from."""

    def size_bytes(self, name: str) -> int | None:
        """Return a file's size; None when it is not there. Raises LayoutError."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file that is there. Raises LayoutError."""
        ...


def blob_name(digest: Digest) -> str:
    """Return where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def read_small(layout: Layout, name: str, limit_bytes: int = MANIFEST_LIMIT_BYTES) -> bytes:
    """Return a file that has to be there and to be small. Raises LayoutError."""
    size_bytes = layout.size_bytes(name)
    if size_bytes is None:
        raise LayoutError(f"{name} is missing: that is no complete OCI layout")
    if size_bytes > limit_bytes:
        raise LayoutError(f"{name} has {size_bytes} bytes; more than {limit_bytes} are not read")
    with layout.open(name) as file:
        return file.read(limit_bytes)


class DirectoryLayout:
    """A layout that is a directory. Links are not followed: they could lead to any file of this machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def size_bytes(self, name: str) -> int | None:
        """Return a file's size; None when it is not there. Raises LayoutError."""
        path = self._directory
        for part in name.split("/"):
            path /= part
            try:
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise LayoutError(f"{path}: {error.strerror}") from None
            if stat.S_ISLNK(mode):
                raise LayoutError(f"{path} is a link: links are not followed")
        if not stat.S_ISREG(mode):
            raise LayoutError(f"{path} is no plain file")
        return path.stat().st_size

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Yield a file that is there. Raises LayoutError."""
        path = self._directory / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise LayoutError(f"{path}: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as file:
            yield file


class _Member(tarfile.TarInfo):
    """A member whose own headers are small."""

    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        if self.type in _LONG_HEADERS and self.size > _HEADER_LIMIT_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return cast(Self, super()._proc_member(archive))  # type: ignore[misc]


class TarLayout:
    """A layout in an uncompressed tar. Use it in a `with` statement. Raises LayoutError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = tarfile.open(path, "r:", tarinfo=_Member)  # noqa: SIM115 - closed by __exit__
        except (tarfile.TarError, OSError) as error:
            raise LayoutError(f"{path} is no layout and no tar of one ({error}); a compressed one: unpack it") from None
        try:
            self._members = self._read_members()
        except LayoutError:
            self._archive.close()
            raise
        except (tarfile.TarError, OSError, ValueError) as error:
            self._archive.close()
            raise LayoutError(f"{path} is no sound tar: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def size_bytes(self, name: str) -> int | None:
        """Return a member's size; None when it is not there."""
        member = self._members.get(name)
        return None if member is None else member.size

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Yield a member that is there. Raises LayoutError."""
        file = self._archive.extractfile(self._members[name])
        assert file is not None
        try:
            with file:
                yield cast(BinaryIO, file)
        except tarfile.TarError as error:
            raise LayoutError(f"{self._path}, {name}: {error}") from None

    def _read_members(self) -> dict[str, tarfile.TarInfo]:
        found: dict[str, tarfile.TarInfo] = {}
        end = self._path.stat().st_size
        for number, member in enumerate(self._archive):
            name = member.name.removeprefix("./")
            fault = _fault(member, end)
            if number >= MOST_MEMBERS:
                fault = f"there are more than {MOST_MEMBERS} members"
            elif name in found:
                fault = "it is there twice"
            if fault is not None:
                raise LayoutError(f"{self._path}: {member.name[:200]!r}: {fault}; nothing of it is imported")
            if member.isreg():
                found[name] = member
        return found


def _fault(member: tarfile.TarInfo, end: int) -> str | None:
    """Return what is wrong with a member that a layout's tar cannot have."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "the name leads out of the archive"
    if member.issym() or member.islnk():
        return "it is a link"
    if member.issparse():
        return "it is sparse: larger than the archive"
    if not (member.isreg() or member.isdir()):
        return "it is no plain file"
    if member.isreg() and member.offset_data + member.size > end:
        return "the archive ends before it"
    return None


@contextmanager
def opened(path: Path) -> Iterator[Layout]:
    """Yield the layout at a path. Raises LayoutError."""
    if path.is_dir():
        yield DirectoryLayout(path)
    else:
        with TarLayout(path) as archive:
            yield archive
