"""What the dashboard and the alerts that are shipped ask for: metrics, and labels of them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONFIG = Path(__file__).parents[2] / "config"
DASHBOARD_FILE = CONFIG / "grafana" / "registry-proxy.json"
ALERTS_FILE = CONFIG / "prometheus" / "alerts.yaml"

SCRAPE_LABELS = frozenset({"instance", "job"})
"""Prometheus itself adds these."""

_SELECTOR = re.compile(r"\b((?:registry_proxy|process)_[a-z_]+)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")
_LABEL_OF_TEXT = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Question:
    """One expression, and the labels that the texts about its result name."""

    where: str
    expression: str
    shown_labels: frozenset[str] = frozenset()

    def selectors(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """Return each metric with its matchers: label, operator, value."""
        return [(name, _MATCHER.findall(matchers)) for name, matchers in _SELECTOR.findall(self.expression)]

    def result_labels(self) -> set[str]:
        """Return the labels that the result must have."""
        grouped = {label.strip() for found in _GROUPING.findall(self.expression) for label in found.split(",")}
        return (grouped | self.shown_labels) - SCRAPE_LABELS - {""}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    loaded: dict[str, Any] = json.loads(DASHBOARD_FILE.read_text(encoding="utf-8"))
    return loaded


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, without the rows' titles."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    """Return the alerting rules."""
    groups = yaml.safe_load(ALERTS_FILE.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def questions() -> list[Question]:
    """Return everything that is asked."""
    return [*_of_panels(), *_of_variables(), *_of_alerts()]


def _of_panels() -> Iterator[Question]:
    for panel in panels():
        for target in panel["targets"]:
            labels = frozenset(_LABEL_OF_TEXT.findall(target["legendFormat"]))
            yield Question(f"panel {panel['title']}", target["expr"], labels)
    for annotation in dashboard()["annotations"]["list"]:
        yield Question(f"annotation {annotation['name']}", annotation["expr"])


def _of_variables() -> Iterator[Question]:
    for variable in dashboard()["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), ([a-z_]+)\)", variable.get("definition", ""))
        if found is not None:
            yield Question(f"variable {variable['name']}", found[1], frozenset({found[2]}))


def _of_alerts() -> Iterator[Question]:
    for rule in alerts():
        text = " ".join(rule["annotations"].values())
        labels = frozenset(re.findall(r"\$labels\.([a-z_]+)", text))
        yield Question(f"alert {rule['alert']}", rule["expr"], labels)
