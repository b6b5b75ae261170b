"""regproxy.store.layout: paths from digests, and a clear word about a directory that cannot be used."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError
from regproxy.store.layout import CONTENT_NAME, Layout, on_disk_bytes


def test_content_lies_below_its_algorithm_and_first_two_characters(tmp_path: Path) -> None:
    """The path on disk is part of what operators rely on."""
    digest = Digest.of(b"x")

    assert Layout(tmp_path).content(digest) == tmp_path / "content" / "sha256" / digest.hex[:2] / digest.hex


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_every_content_name_may_be_deleted(tmp_path: Path, algorithm: str) -> None:
    """The pattern that guards deletion knows the names the store makes."""
    assert CONTENT_NAME.fullmatch(Layout(tmp_path).content_name(Digest.of(b"x", algorithm)))


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "cache.db", "content/sha256/aa/../../../x", "content/sha256/aa/bbcc", "/content/sha256/aa/aa"],
)
def test_no_other_name_may_be_deleted(name: str) -> None:
    """An index that was tampered with cannot make the store delete somebody else's file."""
    assert CONTENT_NAME.fullmatch(name) is None


def test_directories_are_private_and_so_is_the_database(tmp_path: Path) -> None:
    """Private images are nobody's business on a shared machine."""
    layout = Layout(tmp_path / "cache")

    layout.prepare()

    for directory in (layout.directory, layout.directory / "content", layout.directory / "partial"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(layout.database.stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_made_is_named_together_with_the_user(tmp_path: Path) -> None:
    """The one sentence says which directory, which uid, and what to do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match=rf"{tmp_path}/file/cache cannot be .* by uid {os.geteuid()} .*volume"):
        Layout(tmp_path / "file" / "cache").prepare()


def test_stored_lists_content_and_passes_over_strange_files(layout: Layout) -> None:
    """Something an operator dropped there is neither served nor removed."""
    digest = Digest.of(b"hello", "sha512")
    layout.content(digest).parent.mkdir(parents=True)
    layout.content(digest).write_bytes(b"hello")
    (layout.directory / "content" / "README").write_text("mine")
    (layout.content(digest).parent / "notes.txt").write_text("mine")

    assert [(found, status.st_size) for found, status in layout.stored()] == [(digest, 5)]


@given(st.integers(0, 10**12))
def test_sizes_count_in_whole_blocks(size_bytes: int) -> None:
    """A file never takes less than is counted for it, and at most one block more than its size."""
    assert on_disk_bytes(size_bytes) % 4096 == 0
    assert size_bytes <= on_disk_bytes(size_bytes) < size_bytes + 4096
