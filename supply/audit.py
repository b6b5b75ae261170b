"""Asks whether the packages of constraints.txt have known vulnerabilities: `python -m supply.audit`.

pip-audit asks PyPI. Exit code 1: there are some. Without a way to PyPI, or where it does not know the packages, nothing
can be said: that is told, and is no failure.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
QUESTION_LIMIT_S = 15
RUN_LIMIT_S = 300


def main() -> int:
    """Ask, and return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory) / "answer.json"
        problem = _ask(answer)
        try:
            dependencies = json.loads(answer.read_text())["dependencies"]
        except (OSError, ValueError, KeyError):
            return tell([f"audit: not done: {problem}"], 0)
    return tell(*verdict(dependencies))


def verdict(dependencies: Iterable[Mapping[str, object]]) -> tuple[list[str], int]:
    """Return what is to be said about pip-audit's answer, and the exit code."""
    lines, audited, reasons = [], 0, []
    for package in dependencies:
        if "skip_reason" in package:
            reasons.append(str(package["skip_reason"]))
            continue
        audited += 1
        lines += [_hole(package, hole) for hole in _list(package.get("vulns"))]
    code = 1 if lines else 0
    if not audited:
        lines.append(f"audit: not done: {reasons[0] if reasons else 'no packages'}")
    else:
        lines.append(
            f"audit: {audited} packages, {len(lines)} known vulnerabilities, {len(reasons)} packages not known"
        )
    return lines, code


def tell(lines: Sequence[str], code: int) -> int:
    """Print the lines and return the code."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return code


def _ask(answer: Path) -> str:
    """Run pip-audit and return the last line of what it says."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(CONSTRAINTS),
        "--require-hashes",
        "--disable-pip",
    ]
    options = ["--timeout", str(QUESTION_LIMIT_S), "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it is a user's
            [*command, *options, "--output", str(answer)],
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {RUN_LIMIT_S} s"
    return (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]


def _hole(package: Mapping[str, object], hole: object) -> str:
    assert isinstance(hole, dict)
    remedy = ", ".join(map(str, _list(hole.get("fix_versions")))) or "no version yet"
    return f"audit: {package['name']} {package['version']}: {hole['id']}, mended in {remedy}: run make lock"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


if __name__ == "__main__":
    sys.exit(main())
