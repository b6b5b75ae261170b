"""The shared credentials file."""

from pathlib import Path

import pytest

from regproxy.shared.credentials import file_credentials, secret_access_key

TWO = """
[default]
aws_access_key_id = ID1
aws_secret_access_key = SECRET1

[other]
aws_access_key_id=ID2
aws_secret_access_key=SECRET%2
aws_session_token=TOKEN2
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(TWO)
    return {"HOME": str(tmp_path)}


def test_a_profile_is_read_when_it_is_needed(environ: dict[str, str], tmp_path: Path) -> None:
    """So that a key that was replaced is the one that is used."""
    read = file_credentials(environ)
    assert read is not None
    found = read()
    assert (found["access_key_id"], found["secret_access_key"], found.get("token")) == ("ID1", "SECRET1", None)
    (tmp_path / ".aws" / "credentials").write_text(TWO.replace("SECRET1", "SECRET3"))

    assert read()["secret_access_key"] == "SECRET3"


def test_a_session_has_no_secret_that_lasts(environ: dict[str, str]) -> None:
    """The profile's token goes with its keys."""
    read = file_credentials({**environ, "AWS_PROFILE": "other"})
    assert read is not None
    assert (read()["secret_access_key"], read().get("token")) == ("SECRET%2", "TOKEN2")

    assert secret_access_key({**environ, "AWS_PROFILE": "other"}) == ""
    assert secret_access_key(environ) == "SECRET1"


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"])
def test_the_environment_wins(environ: dict[str, str], variable: str) -> None:
    """As with AWS's own tools."""
    assert file_credentials({**environ, variable: "x"}) is None


def test_without_a_file_it_is_obstores_own_way(tmp_path: Path) -> None:
    """A role of the machine or the pod."""
    assert file_credentials({"HOME": str(tmp_path)}) is None
    assert secret_access_key({"HOME": str(tmp_path)}) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[default]\naws_access_key_id = ID1\n", "lacks"),
        ("[other]\n", r"no profile \[default\]"),
        ("SECRET1\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_use_is_an_error_without_its_text(tmp_path: Path, text: str, reason: str) -> None:
    """The path and the profile are named."""
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        secret_access_key({"AWS_SHARED_CREDENTIALS_FILE": str(file)})

    assert str(file) in str(caught.value)
    assert "SECRET1" not in str(caught.value)
