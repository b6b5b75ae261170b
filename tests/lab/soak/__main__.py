"""`python -m lab.soak --minutes 10`: the long soak; prints its rounds and writes docs/soak.md."""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from lab.lab import Lab
from lab.soak.page import page
from lab.soak.run import CLIENTS, Plan, soak

_DOCS = Path(__file__).parents[3] / "docs/soak.md"
_ROUND_S = 60.0
_FILES = 8192
"""Descriptors for the clients, which are all in this process."""


def main() -> int:
    """Soak; return 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(prog="lab.soak", description="Load and disturb the proxy, and see what is left.")
    parser.add_argument("--minutes", type=int, default=10, help="rounds of one minute, after a warm-up of one")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="scripted clients at once")
    parser.add_argument("--write", action="store_true", help="write the figures to docs/soak.md")
    chosen = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most), most))
    plan = Plan(_ROUND_S, _ROUND_S, chosen.minutes, is_long=True, clients=chosen.clients)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name, Lab(Path(name)) as lab:
        report = soak(lab, Path(name) / "soak", plan, _say)
    text = page(report)
    if chosen.write:
        _DOCS.write_text(text)
    _say(text)
    return 1 if report.findings() else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
