"""Run one target under atheris: `python -m fuzz TARGET SECONDS [options of libFuzzer]`.

What it finds on the way lies in `var/fuzz/TARGET`; what is worth keeping goes into `fuzz/corpus/TARGET`, which the
tests replay. An input that fails is written beside it, as `crash-...`.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["regproxy", "fuzz.targets"]):
    from fuzz.targets import TARGETS

_ROOT = Path(__file__).parents[1]


def main() -> None:
    """Fuzz."""
    name, seconds, *options = sys.argv[1:]
    found = _ROOT / "var" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    where = [str(found), str(_ROOT / "fuzz" / "corpus" / name)]
    limits = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup(
        [sys.argv[0], *limits, f"-artifact_prefix={found}/", "-print_final_stats=1", *options, *where], TARGETS[name]
    )
    atheris.Fuzz()


main()
