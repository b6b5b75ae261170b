"""What the build of the image cuts off libraries."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def cut_below(directory: Path) -> str:
    command = [sys.executable, "-I", str(ROOT / "supply/cut_symbols.py"), str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("package", ["yaml", "multidict", "zstandard", "msgpack"])
def test_a_library_can_do_without(package: str, tmp_path: Path) -> None:
    """It is smaller, loads, and a second time there is nothing to cut."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent, tmp_path / package)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*.so")}

    assert int(cut_below(tmp_path).split()[0]) == sum(before.values()) - sum(each.stat().st_size for each in before) > 0

    names = [path.relative_to(tmp_path).as_posix().split(".")[0].replace("/", ".") for path in before]
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport {', '.join(names)}\nprint({names[0]}.__file__)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert loaded.startswith(str(tmp_path))
    assert cut_below(tmp_path) == "0 bytes of symbols cut off\n"


def test_what_is_no_library_stays(tmp_path: Path) -> None:
    """As it is."""
    for content in (b"", b"INPUT(libx.so.1)", b"\x7fELF\x01\x01 of 32 bits"):
        (tmp_path / "x.so").write_bytes(content)
        assert cut_below(tmp_path) == "0 bytes of symbols cut off\n"
        assert (tmp_path / "x.so").read_bytes() == content
