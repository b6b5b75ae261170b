"""Cuts symbols and debug information off the shared libraries below a folder; a fifth of what is installed is that.

For the build of the image, whose base has no `strip`. A program is loaded by its segments (ELF specification, "Program
Header"). What lies behind the last of them is the section table and what only it names, for linkers and debuggers.
"""

import struct
import sys
from pathlib import Path

_64_BIT_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SEGMENTS_AT, _SECTIONS_AT, _NUMBERS_AT = 32, 40, 54
"""Of `e_phoff`, `e_shoff`, and the five sizes and numbers from `e_phentsize` on in the header of a 64-bit file."""


def cut(library: Path) -> int:
    """Cut a shared library; returns how many bytes went, 0 for what is none."""
    content = library.read_bytes()
    if not content.startswith(_64_BIT_LITTLE_ENDIAN):
        return 0
    (table,) = struct.unpack_from("<Q", content, _SEGMENTS_AT)
    size, count = struct.unpack_from("<HH", content, _NUMBERS_AT)
    end: int = table + size * count
    for at in range(table, end, size):
        offset, in_file = struct.unpack_from("<QxxxxxxxxxxxxxxxxQ", content, at + 8)
        end = max(end, offset + in_file)
    kept = bytearray(content[:end])
    struct.pack_into("<Q", kept, _SECTIONS_AT, 0)
    struct.pack_into("<HHH", kept, _NUMBERS_AT + 4, 0, 0, 0)
    library.write_bytes(kept)
    return len(content) - end


if __name__ == "__main__":
    cut_bytes = sum(map(cut, Path(sys.argv[1]).rglob("*.so")))
    sys.stdout.write(f"{cut_bytes} bytes of symbols cut off\n")
