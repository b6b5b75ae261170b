"""The arrows between the rooms: who may import whom, and which libraries have one owner.

Read from the source, not from running it, so that an import inside a function counts too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDONS = Path(__file__).parents[2] / "addons"
ENTRY = "registry_proxy"
PACKAGE = "regproxy"
MAX_LINES = 350

ROOM_MAY_IMPORT = {
    "oci": set[str](),
    "policy": {"oci"},
    "settings": {"oci", "policy"},
    "store": {"oci", "policy"},
    "origin": {"oci", "policy"},
    "engine": {"oci", "policy"},
    "shared": {"oci", "policy", "store", "origin"},
    "stack": {"oci", "policy", "settings", "store", "shared", "origin", "engine"},
    "cli": {"oci"},
    ENTRY: {"oci", "policy", "settings", "store", "shared", "origin", "engine", "stack"},
    "": set[str](),  # regproxy/__init__.py
}
"""The other rooms that each room may know."""

LIBRARY_OWNERS = {
    "mitmproxy": {"engine", "stack", ENTRY},
    "OpenSSL": {"engine", "stack", ENTRY},
    "diskcache": {"store"},
    "aiohttp": {"origin"},
    "botocore": {"origin"},
    "obstore": {"shared"},
    "prometheus_client": {"stack"},
    "rich": {"cli"},
    "typer": {"cli"},
}
"""The only rooms that may know these libraries."""

PURE_ROOMS = {"oci", "policy"}
IMPURE_MODULES = {
    "asyncio",
    "concurrent",
    "datetime",
    "glob",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}
"""The clock, the disk, the network, the log, chance: everything that makes an answer depend on more than arguments."""


def modules() -> list[Path]:
    return sorted(path for path in ADDONS.rglob("*.py") if "/." not in path.relative_to(ADDONS).as_posix())


def room_of(module: Path) -> str:
    parts = module.relative_to(ADDONS).with_suffix("").parts
    if parts[0] != PACKAGE:
        return parts[0]
    return parts[1] if len(parts) > 2 else ""


def imported_names(source: str) -> Iterator[str]:
    """Give the dotted name of every import; `from a import b` is `a.b`, a relative import starts with a period."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def broken_rules(room: str, source: str) -> list[str]:
    return [rule for name in imported_names(source) if (rule := broken_rule(room, name))]


def broken_rule(room: str, imported: str) -> str | None:
    top, _, rest = imported.partition(".")
    if not top:
        return f"{imported}: imports are absolute"
    if (
        top == PACKAGE
        and (other := rest.partition(".")[0]) not in (room, "__version__")
        and other not in ROOM_MAY_IMPORT[room]
    ):
        return f"{imported}: {room or PACKAGE} must not know {other}"
    if top == ENTRY:
        return f"{imported}: nothing imports the entry"
    if room not in LIBRARY_OWNERS.get(top, {room}):
        return f"{imported}: {top} belongs to {', '.join(sorted(LIBRARY_OWNERS[top]))}"
    if room in PURE_ROOMS and top in IMPURE_MODULES:
        return f"{imported}: {room} is pure"
    return None


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.relative_to(ADDONS)))
def test_a_module_keeps_to_its_arrows(module: Path) -> None:
    """No import of the module goes against the arrows, into another room's library, or out of a pure room."""
    assert broken_rules(room_of(module), module.read_text()) == []


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.relative_to(ADDONS)))
def test_a_module_is_one_room(module: Path) -> None:
    """A module of more than 350 lines is two modules."""
    assert len(module.read_text().splitlines()) <= MAX_LINES


def test_nothing_else_lies_beside_the_package() -> None:
    """The addons folder is first on the path of mitmdump, so any other file there could shadow a library."""
    found = {path.name for path in ADDONS.iterdir() if path.name != "__pycache__" and not path.name.startswith(".")}

    assert found <= {f"{ENTRY}.py", PACKAGE}


def test_every_room_is_known() -> None:
    """A new folder needs its arrows drawn here first."""
    rooms = {path.name for path in (ADDONS / PACKAGE).iterdir() if path.is_dir() and path.name.isidentifier()}

    assert rooms - {"__pycache__"} <= ROOM_MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("oci", "from regproxy.policy.tiers import Tier"),
        ("oci", "from regproxy import policy"),
        ("policy", "import regproxy.store.content"),
        ("policy", "def decide():\n    import time"),
        ("oci", "from os import path"),
        ("oci", "import urllib.parse, socket"),
        ("store", "from regproxy.origin.client import Upstream"),
        ("engine", "from regproxy.stack.blobs import BlobCache"),
        ("engine", "from regproxy.settings import Settings"),
        ("", "from regproxy.oci import digest"),
        ("store", "from mitmproxy import http"),
        ("origin", "from OpenSSL import SSL"),
        ("stack", "import diskcache"),
        ("stack", "from aiohttp import ClientSession"),
        ("stack", "from . import blobs"),
        ("stack", "from ..oci import digest"),
        ("stack", "import registry_proxy"),
    ],
)
def test_a_wrong_import_is_found(room: str, source: str) -> None:
    """The check itself notices every kind of broken arrow."""
    assert len(broken_rules(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("policy", "from regproxy.oci.digest import Digest"),
        ("policy", "from regproxy.policy.tiers import Tier"),
        ("oci", "import re, hashlib, urllib.parse"),
        ("stack", "from regproxy.store.content import Store"),
        ("engine", "from mitmproxy import http"),
        (ENTRY, "from regproxy.stack import blobs\nfrom mitmproxy import ctx"),
        ("store", "import os, time, diskcache"),
    ],
)
def test_a_right_import_is_left_alone(room: str, source: str) -> None:
    """The check has no complaint about imports along the arrows."""
    assert broken_rules(room, source) == []
