"""Conventions of the tests themselves."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ADDONS = TESTS.parent / "addons"
PURE_ROOMS = ("oci", "policy")


def files_of_tests() -> list[Path]:
    return sorted(TESTS.rglob("test_*.py"))


def untold_tests(source: str) -> list[str]:
    """Return the names of the test functions, methods included, that have no docstring."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").strip()
    ]


@pytest.mark.parametrize("file", files_of_tests(), ids=lambda file: str(file.relative_to(TESTS)))
def test_every_test_states_its_claim(file: Path) -> None:
    """Each test function has a docstring that says what is claimed."""
    assert untold_tests(file.read_text()) == []


def test_a_silent_test_is_found() -> None:
    """The check sees functions, coroutines and methods, and is not fooled by an empty docstring."""
    source = """
def test_a(): pass
async def test_b(): pass
class TestC:
    def test_c(self): ' '
    def test_d(self): 'Something is claimed.'
def helper(): pass
"""

    assert sorted(untold_tests(source)) == ["test_a", "test_b", "test_c"]


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_every_pure_module_has_its_tests(room: str) -> None:
    """Each module of a pure room has a test file of its own name, and no test file is left without its module."""
    modules = {path.name for path in (ADDONS / "regproxy" / room).glob("[!_]*.py")}
    tests = {path.name.removeprefix("test_") for path in (TESTS / "unit" / room).glob("test_*.py")}

    assert modules == tests
