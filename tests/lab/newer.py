"""A newer version of the proxy, made of this one: its records have fields that this one does not know."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "9.9.9"

_PROGRAMS = ("entrypoint.sh",)

_RECORDS = (
    *("shared/records.py", "store/records.py", "store/pins.py", "store/sources.py", "store/tag_history.py"),
    "store/partial.py",
)
"""The modules that write records, as JSON."""

_NEWER_JSON = '''"""json, whose every object has a field more."""

import json as _json
from json import JSONDecodeError, loads


def dumps(value, **options):
    return _json.dumps(_newer(value), **options)


def _newer(value):
    if isinstance(value, list):
        return [_newer(each) for each in value]
    if isinstance(value, dict):
        return {**{key: _newer(each) for key, each in value.items()}, "newer": {"than": ["all", 9, None]}}
    return value
'''

_TABLES = """CREATE TABLE IF NOT EXISTS Challenge (registry TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"""
_NEWER_TABLES = """;
CREATE TABLE IF NOT EXISTS Newer (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
INSERT INTO Newer (text) VALUES ('of a newer version')"""


def newer_version(directory: Path) -> list[str]:
    """Make it below a directory, and return the command that starts it."""
    tree = directory / "newer"
    shutil.copytree(ROOT / "addons", tree / "addons", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "config").symlink_to(ROOT / "config")
    for name in _PROGRAMS:
        shutil.copy2(ROOT / name, tree / name)
    package = tree / "addons" / "regproxy"
    _replace(package / "stack" / "version.py", 'VERSION = "', f'VERSION = "{VERSION}+')
    (package / "newer_json.py").write_text(_NEWER_JSON)
    for module in _RECORDS:
        _replace(package / module, "\nimport json\n", "\nfrom regproxy import newer_json as json\n")
    _replace(package / "store" / "access_table.py", _TABLES, _TABLES + _NEWER_TABLES)
    return [str(tree / "entrypoint.sh")]


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has changed: {old!r} is not in it once"
    file.write_text(text.replace(old, new))
