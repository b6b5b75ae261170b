"""ADMIN_TOKEN: short ones are no secret, and none is ever shown."""

from pathlib import Path

import pytest

from regproxy.settings import SettingsError, load_settings

TOKEN = "sixteen-characters-or-more"


@pytest.mark.parametrize("text", ["short", "fifteen-letters", "sixteen characters or more", "s\u00e9ize-caracteres"])
def test_a_token_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    """Too short, blanks, or what a header field cannot hold."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"ADMIN_TOKEN": text})

    assert caught.value.problems == ("ADMIN_TOKEN: not 16 or more ASCII characters without blanks",)


def test_a_token_may_be_in_a_file_and_is_not_shown(tmp_path: Path) -> None:
    """The line end of the file is not part of it."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = load_settings({"ADMIN_TOKEN_FILE": str(tmp_path / "token")})

    assert settings.admin_token == TOKEN
    assert TOKEN not in repr(settings)
