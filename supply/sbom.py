"""Lists what an image holds, as CycloneDX 1.6 JSON: `podman export CONTAINER | python -m supply.sbom >sbom.cdx.json`.

Read from the file system itself, so that it is what runs, not what was asked for: Debian's packages, Python, the
packages beside it, and the proxy. The same image gives the same list; only serial number and time differ.
"""

import email.parser
import re
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

_PYTHON_PACKAGE = re.compile(r"(?:.*/)?(?:site|dist)-packages/[^/]+\.dist-info/METADATA")
_DEBIAN_STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/.]+)")
_PATCH_LEVEL = re.compile(r"usr/(?:local/)?include/python3[^/]*/patchlevel\.h")
_PYTHON_VERSION = re.compile(rb'#define PY_VERSION\s+"([^"]+)"')


def bill_of(files: BinaryIO) -> Bom:
    """Return the list of what a tar stream of a root file system holds. Raises tarfile.TarError."""
    bill = Bom()
    project = tomllib.loads(PROJECT.read_text())["project"]
    bill.metadata.component = Component(
        name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref=project["name"]
    )
    for component in _components(files):
        bill.components.add(component)
    bill.register_dependency(bill.metadata.component, bill.components)
    return bill


def _components(files: BinaryIO) -> Iterator[Component]:
    with tarfile.open(fileobj=files, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./").lstrip("/")
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if _PYTHON_PACKAGE.fullmatch(name):
                yield _python_package(_fields(content.read()))
            elif _DEBIAN_STATUS.fullmatch(name):
                yield from _debian_packages(content.read())
            elif _PATCH_LEVEL.fullmatch(name) and (found := _PYTHON_VERSION.search(content.read())):
                yield _component("python", found[1].decode(), PackageURL("generic", None, "python", found[1].decode()))


def _python_package(fields: Message) -> Component:
    name, version = str(fields["Name"]), str(fields["Version"])
    return _component(name, version, PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version))


def _debian_packages(status: bytes) -> Iterator[Component]:
    for paragraph in status.split(b"\n\n"):
        fields = _fields(paragraph)
        if fields["Package"] and " installed" in (fields["Status"] or "ok installed"):
            name, version = str(fields["Package"]), str(fields["Version"])
            qualifiers = {"arch": str(fields["Architecture"])}
            yield _component(name, version, PackageURL("deb", "debian", name, version, qualifiers))


def _component(name: str, version: str, purl: PackageURL) -> Component:
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=purl.to_string())


def _fields(text: bytes) -> Message:
    """Read the form that Debian's control files and Python's METADATA share (RFC 822)."""
    return email.parser.BytesParser().parsebytes(text.strip(), headersonly=True)


if __name__ == "__main__":
    sys.stdout.write(JsonV1Dot6(bill_of(sys.stdin.buffer)).output_as_string(indent=1) + "\n")
