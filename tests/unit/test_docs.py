"""The documentation keeps up with the settings."""

from pathlib import Path

import pytest

from regproxy.settings.documentation import markdown_rows

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("row", markdown_rows(), ids=lambda row: row.split("|")[1].strip(" `"))
def test_the_readme_has_the_row_of_every_setting(row: str) -> None:
    """Name, default and meaning are those of the code; `python -m regproxy.settings table` prints the rows."""
    assert row in README.read_text(encoding="utf-8").splitlines()
