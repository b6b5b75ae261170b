"""docs/scaling.md and the model's inputs against what they are made from."""

import json
import re
import statistics
from pathlib import Path

import pytest
import yaml
from bench.scaling.inputs import Inputs, read_inputs
from bench.scaling.tables import PAGE, all_tables, renewed

ROOT = Path(__file__).parents[2]
FAR = 0.1
"""How far an input may be from what was measured."""


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Return the inputs of the repository."""
    return read_inputs()


def test_the_tables_are_what_the_model_gives(inputs: Inputs) -> None:
    """`python -m bench.scaling.tables --write` renews them."""
    tables, page = all_tables(inputs), PAGE.read_text(encoding="utf-8")

    assert renewed(page, tables) == page
    assert set(re.findall(r"<!-- table: ([a-z-]+) -->", page)) == tables.keys()


@pytest.mark.parametrize("door", ["mirror", "tls"])
def test_the_costs_of_a_door_are_those_that_were_measured(inputs: Inputs, door: str) -> None:
    """By the one worker of bench/results-scaling.json."""
    costs = inputs.doors[door]
    more_s = (_median("4 workers", f"{door}-new-cpu") - _median("1 worker", f"{door}-new-cpu")) / 3 / 1e6

    assert costs.new_s == pytest.approx(_median("1 worker", f"{door}-new-cpu") / 1e6, rel=FAR)
    assert costs.new_more_for_worker_s == pytest.approx(more_s, rel=FAR)
    assert costs.kept_s == pytest.approx(_median("1 worker", f"{door}-kept-cpu") / 1e6, rel=FAR)
    assert costs.cpu_s_per_gib == pytest.approx(_median("1 worker", f"{door}-blob-cpu"), rel=FAR)
    assert costs.connection_bytes == pytest.approx(_median("1 worker", f"{door}-waiting") * 1024, rel=FAR, abs=500)


def test_the_costs_of_the_proxy_are_those_that_were_measured(inputs: Inputs) -> None:
    """What comes in costs what a pull costs, without what it costs to send it."""
    sent = _median("two replicas", "warm-cpu")

    assert inputs.worker_bytes == pytest.approx(_median("1 worker", "memory") * (1 << 20), rel=FAR)
    assert inputs.cold_cpu_s_per_gib == pytest.approx(_median("two replicas", "cold-cpu") - sent, rel=FAR)
    assert inputs.bucket_cpu_s_per_gib == pytest.approx(_median("two replicas", "bucket-cpu") - sent, rel=FAR)
    assert inputs.bucket_bytes_s == pytest.approx(_median("two replicas", "bucket-speed") * 1e6, rel=FAR)


def test_the_values_for_spegel_become_the_hosts_file_of_the_page() -> None:
    """Both name the same proxy, and the hosts file has the form of Spegel's template for the first registry."""
    page = PAGE.read_text(encoding="utf-8")
    (values,) = (yaml.safe_load(block)["spegel"] for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    (hosts,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    targets = ["http://192.0.2.10:30020", *values["additionalMirrorTargets"]]
    entry = "[host.'{}']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'\n"

    assert values["mirroredRegistries"][0] == "https://docker.io"
    assert hosts == "\n".join(["server = 'https://registry-1.docker.io'\n", *map(entry.format, targets)])


def _median(subject: str, name: str) -> float:
    document = json.loads((ROOT / "bench/results-scaling.json").read_text(encoding="utf-8"))
    return float(statistics.median(document["figures"][subject][name]))
