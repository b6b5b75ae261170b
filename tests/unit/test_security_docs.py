"""docs/security.md: every known hole has a rule in a file that exists and tests that exist."""

import re
from pathlib import Path

import pytest

from regproxy.settings import load_settings
from regproxy.stack.wiring import mitmproxy_options

ROOT = Path(__file__).parents[2]
HOLES = (
    "Cache key without host",
    "Bearer realm steers credentials",
    "Credentials kept across redirects",
    "SSRF through redirects",
    "Open CONNECT relay",
    "Admin plane through the proxy port",
    "Private image leak",
    "Manifest type confusion",
    "Digest path traversal",
    "Request smuggling",
    "Host, SNI and CONNECT mismatch",
    "Decompression and size bombs",
    "Upstream TLS off",
    "Proxy user becomes writer",
    "CA key theft",
    "Memory disclosure by side protocols",
    "Deleted upstream stays served",
    "Secrets in logs",
    "LDAP logins at the proxy",
    "Upstream contacted before anybody asks",
)


def _rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    section = (
        (ROOT / "docs/security.md").read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    )
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


KNOWN = _rows("Known holes of this kind of program")


def test_every_hole_has_its_row() -> None:
    """None is left out, none is there twice."""
    assert [row[0] for row in KNOWN] == list(HOLES)


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row[0])
def test_a_hole_has_a_rule_and_tests_that_exist(row: list[str]) -> None:
    """A file or a test that is renamed takes its row along."""
    _, _, rule, files, tests = row
    assert rule
    for file in _quoted(files):
        assert (ROOT / "addons/regproxy" / file).is_file(), file
    named = _quoted(tests)
    assert named
    for test in named:
        module, _, name = test.partition("::")
        assert re.search(rf"^ *(async )?def {name}\b", (ROOT / "tests" / module).read_text(), re.MULTILINE), test


@pytest.mark.parametrize("row", _rows("Threats"), ids=lambda row: f"{row[0]} {row[1][:30]}")
def test_a_threat_is_met_in_files_that_exist(row: list[str]) -> None:
    """Each of the table's last column."""
    places = _quoted(row[3])
    for place in places:
        assert (ROOT / "addons/regproxy" / place).exists() or (ROOT / place).exists(), place
    assert places or "](" in row[3]


def test_no_setting_turns_mitmproxys_own_logins_on() -> None:
    """CVE-2026-40606 was in its LDAP; a login of that form is a login here, and nothing else."""
    told = mitmproxy_options(load_settings({"PROXY_AUTH": "ldap:localhost"}))

    assert "proxyauth" not in told


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
