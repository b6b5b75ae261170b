"""The dashboard can be imported, Prometheus takes every expression, and alerts come when they should."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from lab.monitoring import ALERTS_FILE, alerts, dashboard, panels, questions

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool of Debian's prometheus is not here"
)
CASES = Path(__file__).with_name("alerts_test.yaml")


def promtool(*arguments: str, cwd: Path = ALERTS_FILE.parent) -> None:
    """Run it, and fail with what it says."""
    ran = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_prometheus_takes_the_alerts() -> None:
    """And the example of its configuration, with them."""
    promtool("check", "rules", ALERTS_FILE.name)
    promtool("check", "config", "prometheus.yaml")


@needs_promtool
def test_alerts_come_when_they_should(tmp_path: Path) -> None:
    """And not before, nor for others."""
    shutil.copy(ALERTS_FILE, tmp_path)
    shutil.copy(CASES, tmp_path)
    promtool("test", "rules", CASES.name, cwd=tmp_path)


@needs_promtool
def test_every_expression_of_the_dashboard_can_be_asked(tmp_path: Path) -> None:
    """Written as rules, with Grafana's variables filled in."""
    filled = {"$__rate_interval": "5m", "$__range": "1d", "$instance": ".*", "$registry": ".*", "$job": ".*"}
    rules = []
    for number, question in enumerate(questions()):
        expression = question.expression
        for variable, value in filled.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, question.where
        rules.append({"record": f"checked:{number}", "expr": expression})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool("check", "rules", "rules.yaml", cwd=tmp_path)


def test_panels_lie_side_by_side() -> None:
    """Grafana moves what overlaps, and then nothing is where it was meant to be."""
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    cells: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        cells |= taken


def test_the_dashboard_is_tied_to_no_installation() -> None:
    """Its data source is chosen where it is imported, and each panel asks by it."""
    assert dashboard().get("id") is None
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels():
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}, panel["title"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong(alert: dict[str, dict[str, str]]) -> None:
    """How bad it is, and in one line what."""
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    assert alert["annotations"]["summary"]
