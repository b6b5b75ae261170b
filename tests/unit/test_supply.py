"""The audit of packages and the list of what an image holds."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from cyclonedx.output.json import JsonV1Dot6
from supply.audit import verdict
from supply.sbom import bill_of

ROOT = Path(__file__).parents[2]

METADATA = "Metadata-Version: 2.4\nName: Zope.Thing\nVersion: 1.2\n\nA text, Name: not this one\n"
STATUS = """Package: base-files
Status: install ok installed
Architecture: amd64
Version: 13.8

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def archive(files: dict[str, str]) -> io.BytesIO:
    """Return a tar stream as an engine exports it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    stream.seek(0)
    return stream


def packages(files: dict[str, str]) -> list[str]:
    """Return the package URLs of the list of these files."""
    listed = json.loads(JsonV1Dot6(bill_of(archive(files))).output_as_string())
    return sorted(each["purl"] for each in listed.get("components", []))


class TestSbom:
    def test_it_lists_debian_python_and_its_packages(self) -> None:
        """What is installed, by its package URL; not what was removed, nor what only looks like a package."""
        site = "opt/registry-proxy/.venv/lib/python3.13/site-packages"
        files = {
            f"{site}/zope_thing-1.2.dist-info/METADATA": METADATA,
            f"{site}/zope_thing-1.2.dist-info/RECORD": "Name: other\nVersion: 3\n",
            "var/lib/dpkg/status": STATUS,
            "usr/local/include/python3.13/patchlevel.h": '#define PY_VERSION      "3.13.9"\n',
            "tmp/var/lib/dpkg/status": STATUS.replace("base-files", "elsewhere"),
        }

        listed = ["pkg:deb/debian/base-files@13.8?arch=amd64", "pkg:generic/python@3.13.9", "pkg:pypi/zope-thing@1.2"]
        assert packages(files) == listed
        assert packages({f"./{name}": text for name, text in files.items()}) == listed

    def test_it_says_what_it_is_of(self) -> None:
        """Name and version are the project's, the form CycloneDX 1.6."""
        listed = json.loads(JsonV1Dot6(bill_of(archive({"var/lib/dpkg/status": STATUS}))).output_as_string())

        assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
        assert listed["metadata"]["component"]["name"] == "registry-proxy"
        needed = next(each for each in listed["dependencies"] if each["ref"] == "registry-proxy")
        assert needed["dependsOn"] == ["pkg:deb/debian/base-files@13.8?arch=amd64"]


KNOWN = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"], "aliases": []}]}
UNKNOWN = {"name": "c", "skip_reason": "not found on PyPI: c"}


class TestAudit:
    def test_a_hole_is_a_failure_with_its_remedy(self) -> None:
        """The check fails, whatever else is unknown."""
        lines, code = verdict([KNOWN, HOLE, UNKNOWN])

        assert code == 1
        assert lines[0] == "audit: b 2: CVE-1, mended in 3: run make lock"

    def test_nothing_found_is_told(self) -> None:
        """With the number of packages that were looked up."""
        assert verdict([KNOWN, UNKNOWN]) == (
            ["audit: 1 packages, 0 known vulnerabilities, 1 packages not known"],
            0,
        )

    def test_an_index_that_knows_nothing_is_no_audit(self) -> None:
        """pip-audit calls it `No known vulnerabilities found`; here it is said that nothing was looked at."""
        assert verdict([UNKNOWN]) == (["audit: not done: not found on PyPI: c"], 0)

    @pytest.mark.timeout(120)
    def test_without_a_way_out_the_check_goes_on(self) -> None:
        """Nobody answers at the proxy that it is told to use: it says why it could not ask, and is no failure."""
        environ = {
            **os.environ,
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "",
        }
        command = [sys.executable, "-m", "supply.audit"]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

        assert done.returncode == 0
        assert done.stderr.startswith("audit: not done: ")
        assert done.stderr.count("\n") == 1
