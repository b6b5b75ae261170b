"""The key of logins: made once, private, replaced when it is damaged."""

from pathlib import Path

import pytest

from regproxy.store.errors import StoreError
from regproxy.store.identity_key import KEY_BYTES, read_or_make


def test_it_is_made_once(tmp_path: Path) -> None:
    """And readable for its owner only."""
    path = tmp_path / "identity.key"
    key = read_or_make(path)
    assert read_or_make(path) == key
    assert len(key) == KEY_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["identity.key"]


def test_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    """An empty key would be anybody's."""
    path = tmp_path / "identity.key"
    path.write_bytes(b"")
    assert len(read_or_make(path)) == KEY_BYTES


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """With its name and what to do."""
    with pytest.raises(StoreError, match=r"identity\.key cannot be read or written"):
        read_or_make(tmp_path / "missing" / "identity.key")
