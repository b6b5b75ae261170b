"""Export: write an OCI image layout, as a directory or as a tar, from what the proxy has stored.

Every content is hashed on its way. A directory that holds part of it already is completed; nothing is read by its new
name before all of it is there: `index.json` comes last, and a tar gets its name at the end.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from regproxy.cli.api import Api, ApiError
from regproxy.cli.layout_index import LAYOUT_FILE, written_index
from regproxy.cli.layouts import DirectoryLayout, LayoutError, blob_name, read_small
from regproxy.oci.digest import Digest

_PIECE_BYTES = 1024 * 1024

type Progress = Callable[[int], None]
"""Told how many bytes have come."""


class _Checked(io.RawIOBase):
    """What is downloaded, hashed while it is read; ends with an ApiError when it is not what it should be."""

    def __init__(self, source: BinaryIO, digest: Digest, size_bytes: int, progress: Progress) -> None:
        self._source, self._digest, self._left_bytes = source, digest, size_bytes
        self._hash = digest.new_hash()
        self._progress = progress

    def read(self, size: int = -1, /) -> bytes:
        wanted_bytes = self._left_bytes if size < 0 else min(size, self._left_bytes)
        piece = self._source.read(wanted_bytes)
        self._hash.update(piece)
        self._left_bytes -= len(piece)
        self._progress(len(piece))
        if len(piece) < wanted_bytes or (not self._left_bytes and self._hash.hexdigest() != self._digest.hex):
            raise ApiError(f"{self._digest} came incomplete or wrong: export again, or `registry-proxy verify`")
        return piece


class _Target(Protocol):
    """Where a layout is written."""

    def has(self, digest: Digest, size_bytes: int) -> bool:
        """Whether a blob is there already."""

    def add(self, digest: Digest, size_bytes: int, content: _Checked) -> None:
        """Write a blob."""

    def finish(self, images: list[dict[str, Any]]) -> None:
        """Write what names the images."""


class _Directory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def has(self, digest: Digest, size_bytes: int) -> bool:
        path = self._directory / blob_name(digest)
        if not path.is_file() or path.stat().st_size != size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.hex

    def add(self, digest: Digest, size_bytes: int, content: _Checked) -> None:
        path = self._directory / blob_name(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.part")
        with new.open("wb") as file:
            while size_bytes > 0:
                piece = content.read(_PIECE_BYTES)
                size_bytes -= len(piece)
                file.write(piece)
        new.replace(path)

    def finish(self, images: list[dict[str, Any]]) -> None:
        before: list[dict[str, Any]] = []
        if (self._directory / "index.json").exists():
            read = json.loads(read_small(DirectoryLayout(self._directory), "index.json"))
            before = [each for each in read.get("manifests", ()) if isinstance(each, dict)]
        (self._directory / "oci-layout").write_bytes(LAYOUT_FILE)
        new = self._directory / "index.json.part"
        new.write_bytes(written_index(images, before))
        new.replace(self._directory / "index.json")


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def has(self, digest: Digest, size_bytes: int) -> bool:  # noqa: ARG002 - a tar is always new
        return False

    def add(self, digest: Digest, size_bytes: int, content: _Checked) -> None:
        self._archive.addfile(_member(blob_name(digest), size_bytes), content)

    def finish(self, images: list[dict[str, Any]]) -> None:
        for name, body in (("oci-layout", LAYOUT_FILE), ("index.json", written_index(images))):
            self._archive.addfile(_member(name, len(body)), io.BytesIO(body))


def export(api: Api, told: dict[str, Any], output: Path, progress: Progress) -> None:
    """Write what the API described. Raises ApiError."""
    try:
        with _opened(output) as target:
            for content in told["contents"]:
                digest, size_bytes = Digest.parse(content["digest"]), content["size_bytes"]
                if target.has(digest, size_bytes):
                    progress(size_bytes)
                    continue
                with api.download("/content", digest=str(digest)) as source:
                    target.add(digest, size_bytes, _Checked(source, digest, size_bytes, progress))
            target.finish(told["images"])
    except OSError as error:
        raise ApiError(f"{output}: {error.strerror or error}") from None
    except (ValueError, AttributeError):
        raise LayoutError(f"{output}/index.json is no index: write to another directory") from None


def described(api: Api, images: list[str], platforms: str | None) -> dict[str, Any]:
    """Ask for the descriptions of all images, as one; content that they share is there once."""
    told = [api.ask("GET", "/export", target=image, platforms=platforms) for image in images]
    return {
        "images": list({(each["image"], each["digest"]): each for one in told for each in one["images"]}.values()),
        "contents": list({each["digest"]: each for one in told for each in one["contents"]}.values()),
        "missing": [each for one in told for each in one["missing"]],
    }


def is_tar(output: Path) -> bool:
    """Whether a tar is meant, by its name."""
    return output.suffix == ".tar" and not output.is_dir()


@contextmanager
def _opened(output: Path) -> Iterator[_Target]:
    if not is_tar(output):
        output.mkdir(parents=True, exist_ok=True)
        yield _Directory(output)
        return
    new = output.with_name(f"{output.name}.part")
    try:
        with tarfile.open(new, "w", format=tarfile.PAX_FORMAT) as archive:
            yield _Tar(archive)
        new.replace(output)
    finally:
        new.unlink(missing_ok=True)


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    """Return a member that is the same whoever exports, and when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    return member
