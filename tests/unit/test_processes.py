"""Where the proxy starts other programs, and what it never does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDONS = Path(__file__).parents[2] / "addons"
STARTED = {
    "regproxy/origin/credential_helper.py": ["subprocess_exec"],
    "regproxy/engine/workers.py": ["os.execv"],
    "regproxy/engine/supervisor.py": ["create_subprocess_exec"],
}
"""Credential helpers of docker, and the proxy itself as supervisor and workers."""

_STARTERS = {
    "system",
    "popen",
    "create_subprocess_shell",
    "create_subprocess_exec",
    "subprocess_shell",
    "subprocess_exec",
}
_PREFIXES = ("exec", "spawn", "fork", "posix_spawn")
_MODULES = {"subprocess", "pty", "multiprocessing", "commands"}


def starts(source: str) -> Iterator[str]:
    """Give every use of something that starts a program."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name.startswith(_PREFIXES):
                yield f"os.{name}"
            case ast.Attribute(attr=name) if name in _STARTERS:
                yield name
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.partition(".")[0] in _MODULES)
            case ast.ImportFrom(module=module) if (module or "").partition(".")[0] in _MODULES:
                yield str(module)
            case ast.Name(id="eval" | "exec" | "compile" as name):
                yield name
            case _:
                pass


@pytest.mark.parametrize("module", sorted(ADDONS.rglob("*.py")), ids=lambda path: path.relative_to(ADDONS).as_posix())
def test_only_credential_helpers_and_workers_are_started(module: Path) -> None:
    """Without a shell; what clients and registries say is never part of a command."""
    expected = STARTED.get(module.relative_to(ADDONS).as_posix(), [])

    assert list(starts(module.read_text())) == expected


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.system(x)",
        "os.popen(x)",
        "os.execv(a, b)",
        "os.posix_spawn(a, b, c)",
        "asyncio.create_subprocess_shell(x)",
        "loop.subprocess_shell(p, x)",
        "eval(x)",
    ],
)
def test_a_start_is_found(source: str) -> None:
    """The check sees each way."""
    assert list(starts(source))
