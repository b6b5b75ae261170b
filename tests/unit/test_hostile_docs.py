"""docs/hostile-upstreams.md keeps up with what is played: `PYTHONPATH=addons:tests python -m lab.hostile_cases`."""

from pathlib import Path

from lab.hostile import markdown
from lab.hostile_cases import HOSTILE_CASES

PAGE = Path(__file__).parents[2] / "docs" / "hostile-upstreams.md"


def test_the_table_of_the_page_is_the_table_of_the_tests() -> None:
    """Each row, in the same order, and no other."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index("|---|---|---|---|") + 1

    assert [line for line in lines[begin:] if line.startswith("|")] == markdown(HOSTILE_CASES)


def test_every_case_has_a_name_of_its_own() -> None:
    """The name is the test's, and the repository's."""
    names = [case.does for case in HOSTILE_CASES]

    assert sorted(set(names)) == sorted(names)
