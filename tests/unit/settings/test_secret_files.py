"""Secrets in files: `<variable>_FILE` for every secret, and never both."""

from pathlib import Path

import pytest

from regproxy.settings import SettingsError, load_settings
from regproxy.settings.table import SETTINGS_TABLE

SECRET = "hunter2-s3cret"
SECRETS = [row.variable for row in SETTINGS_TABLE if row.secret]


def test_the_known_secrets_are_secrets() -> None:
    """Or they would have no file."""
    assert {"AUTH_REGISTRIES", "CERT_PASSWORD", "HTTPS_PROXY"} <= set(SECRETS)


def test_logins_and_passphrase_are_read_from_files(tmp_path: Path) -> None:
    """As they would stand in the variable; the last line end is the editor's."""
    logins, passphrase = tmp_path / "logins", tmp_path / "passphrase"
    logins.write_text(f"a.test:u:{SECRET}\nb.test:v:w\n")
    passphrase.write_text(f"{SECRET} \r\n")

    settings = load_settings({"AUTH_REGISTRIES_FILE": str(logins), "CERT_PASSWORD_FILE": f'"{passphrase}"'})

    assert [(each.host, each.password) for each in settings.credentials] == [("a.test", SECRET), ("b.test", "w")]
    assert settings.cert_password == f"{SECRET} "


@pytest.mark.parametrize("variable", SECRETS)
def test_both_are_an_error(variable: str, tmp_path: Path) -> None:
    """Which of them counts could only be guessed."""
    path = tmp_path / "secret"
    path.write_text(SECRET)

    with pytest.raises(SettingsError) as caught:
        load_settings({variable: SECRET, f"{variable}_FILE": str(path)})

    assert str(caught.value) == f"{variable}_FILE={path}: {variable} is set, too: keep one of them"


@pytest.mark.parametrize("variable", SECRETS)
def test_a_file_that_cannot_be_read_is_an_error(variable: str, tmp_path: Path) -> None:
    """A secret that is not mounted is no reason to go on without it."""
    text = tmp_path / "binary"
    text.write_bytes(b"\xff\xfe" + SECRET.encode())

    with pytest.raises(SettingsError, match=f"^{variable}_FILE=/none: No such file or directory$"):
        load_settings({f"{variable}_FILE": "/none"})
    with pytest.raises(SettingsError, match="not a file of UTF-8 text") as caught:
        load_settings({f"{variable}_FILE": str(text)})
    assert SECRET not in str(caught.value)


def test_a_bad_entry_of_a_file_is_told_with_its_number_only(tmp_path: Path) -> None:
    """As from the variable."""
    path = tmp_path / "logins"
    path.write_text(f"a.test:u:p\n{SECRET}\n")

    settings = load_settings({"AUTH_REGISTRIES_FILE": str(path)})

    assert settings.warnings[0].startswith("AUTH_REGISTRIES: entry 2 is left out: ")
    assert SECRET not in repr(settings)
