"""regproxy.store.disk: text and adopted files in, text out, and never a pickle."""

from pathlib import Path

import pytest
from diskcache.core import MODE_BINARY, MODE_NONE, MODE_PICKLE, MODE_RAW, MODE_TEXT

from regproxy.oci.digest import Digest
from regproxy.store.disk import AdoptedFile, ContentDisk
from regproxy.store.errors import StoreError
from regproxy.store.layout import Layout
from regproxy.store.records import content_key

DIGEST = Digest.of(b"hello")


@pytest.fixture
def disk(layout: Layout) -> ContentDisk:
    return ContentDisk(str(layout.directory))


def test_a_finished_file_is_renamed_to_its_digest(disk: ContentDisk, layout: Layout) -> None:
    """Adopting moves the very file, no byte is copied, and counts it in whole blocks."""
    finished = layout.directory / "partial" / "x"
    finished.write_bytes(b"hello")
    inode = finished.stat().st_ino

    size, mode, filename, value = disk.store(AdoptedFile(finished), read=False, key=content_key(DIGEST))

    assert (size, mode, value) == (4096, MODE_BINARY, None)
    assert filename == layout.content_name(DIGEST)
    assert layout.content(DIGEST).stat().st_ino == inode
    assert not finished.exists()


def test_text_of_any_length_stays_in_the_row(disk: ContentDisk) -> None:
    """Long texts do not become files with random names."""
    assert disk.store("x" * 100_000, read=False, key="tag:x") == (0, MODE_RAW, None, "x" * 100_000)


@pytest.mark.parametrize("value", [b"bytes", 1, 1.5, None, ["list"], object()], ids=lambda value: type(value).__name__)
def test_other_values_are_refused_instead_of_pickled(disk: ContentDisk, value: object) -> None:
    """There is no value for which a pickle would be written."""
    with pytest.raises(StoreError, match="takes text and adopted files"):
        disk.store(value, read=False, key="tag:x")


@pytest.mark.parametrize("key", [b"bytes", 1, ("content", "x"), None], ids=repr)
def test_other_keys_are_refused_instead_of_pickled(disk: ContentDisk, key: object) -> None:
    """There is no key for which a pickle would be written."""
    with pytest.raises(StoreError, match="takes text keys only"):
        disk.put(key)


@pytest.mark.parametrize("raw", [0, False], ids=repr)
def test_a_pickled_key_is_refused(disk: ContentDisk, raw: object) -> None:
    """A key that diskcache would unpickle is an error (CVE-2025-69872)."""
    with pytest.raises(StoreError, match="not text"):
        disk.get(b"\x80\x05N.", raw)


@pytest.mark.parametrize("mode", [MODE_NONE, MODE_TEXT, MODE_PICKLE, 99])
def test_values_of_other_modes_are_refused(disk: ContentDisk, mode: int) -> None:
    """A value that diskcache would unpickle, or read from a file that the row names, is an error."""
    with pytest.raises(StoreError, match=f"mode {mode}"):
        disk.fetch(mode, "content/x", b"\x80\x05N.", read=False)


def test_a_content_row_gives_its_name_not_its_bytes(disk: ContentDisk) -> None:
    """Content never passes through the index."""
    assert disk.fetch(MODE_BINARY, "content/sha256/ab/abc", None, read=False) == "content/sha256/ab/abc"


def test_only_content_files_are_removed(disk: ContentDisk, layout: Layout, tmp_path: Path) -> None:
    """A row that names another file is an error, and the file stays."""
    (tmp_path / "precious").write_text("x")

    with pytest.raises(StoreError, match="not its own to delete"):
        disk.remove("../precious")

    assert (tmp_path / "precious").exists()
    disk.remove(layout.content_name(DIGEST))
