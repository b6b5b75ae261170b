"""docs/metrics.md lists every metric, with its type, its labels and its meaning, and no other."""

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from regproxy.engine.certificates import Certificates
from regproxy.stack.core import Core
from regproxy.stack.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def rows() -> list[str]:
    """Return the table as it has to be."""
    metrics = Metrics(Core(), Certificates())
    own = [each for each in metrics.families.registry._collector_to_names if isinstance(each, MetricWrapperBase)]
    table = ["| Metric | Type | Labels | Meaning |", "| --- | --- | --- | --- |"]
    for each in own:
        name = f"{each._name}_total" if each._type == "counter" else each._name
        labels = ", ".join(f"`{label}`" for label in each._labelnames)
        table.append(f"| `{name}` | {each._type} | {labels} | {each._documentation} |")
    return table


def test_the_table_is_that_of_the_code() -> None:
    """In the order in which they are made."""
    text = DOCS.read_text(encoding="utf-8").splitlines()
    start = text.index(rows()[0])

    assert text[start : start + len(rows()) + 1] == [*rows(), ""]
