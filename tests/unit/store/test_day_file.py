"""The file of the day counters."""

import stat
from pathlib import Path

import pytest

from regproxy.policy.day_counts import DayCounts, History
from regproxy.store.day_file import MOST_BYTES, NAME, read_history, write_history
from regproxy.store.errors import StoreError

HISTORY = History(5.0, {100: DayCounts(hits=1)})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """The second write replaces the first, for the owner only, and leaves nothing beside it."""
    for text in (History(1.0).to_json(), HISTORY.to_json()):
        write_history(tmp_path, text)

    assert read_history(tmp_path) == HISTORY
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_no_file_is_no_history(tmp_path: Path) -> None:
    """As at the first start."""
    assert read_history(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"x" * (MOST_BYTES + 1)])
def test_a_broken_file_is_told_with_its_name(tmp_path: Path, content: bytes) -> None:
    """However large it is."""
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(StoreError, match=NAME):
        read_history(tmp_path)


def test_a_directory_that_is_gone_is_a_store_error(tmp_path: Path) -> None:
    """The pulls go on."""
    with pytest.raises(StoreError, match="cannot be written"):
        write_history(tmp_path / "gone", "{}")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Nothing outside is written, whoever may write to the directory."""
    (tmp_path / "cache").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "cache" / NAME).symlink_to(victim)
    write_history(tmp_path / "cache", HISTORY.to_json())
    assert victim.read_text() == "kept"
