"""What the commands about outages show: which images are ready for one, and what came of a drill."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regproxy.cli.render import age

_COLOURS = {"ready": "green", "previous": "yellow", "incomplete": "red"}


def readiness(told: Mapping[str, Any]) -> RenderableType:
    """Show each image and whether it would come from the cache."""
    images = told["images"]
    days = f"{told['window_s'] / 86400:g} days"
    if not images:
        return Text(f"nothing was pulled within {days}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "in an outage", "platforms", "missing", "pulled"):
        table.add_column(column, overflow="fold")
    for each in images:
        missing = "" if each["state"] != "incomplete" else f"{each['missing_known'] or 'all of it'}"
        table.add_row(
            Text(each["image"]),
            Text(each["state"], _COLOURS[each["state"]]),
            Text(", ".join(each["platforms"])),
            Text(missing),
            Text(age(each["pulled_age_s"])),
        )
    return Group(table, Text(f"{told['ready']} of {len(images)} images that were pulled within {days} are ready"))


def drill(told: Mapping[str, Any]) -> RenderableType:
    """Show what clients did not get."""
    head = f"{told['registry']} for {', '.join(told['clients'])}: {told['served']} served, {told['failed']} failed"
    head += f", {age(told['remaining_s'])} to go" if told["under_way"] else ", over"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("failed", "client", "answer", "times"):
        table.add_column(column, overflow="fold")
    for each in told["failures"]:
        table.add_row(Text(each["what"], "red"), each["client_ip"], str(each["status"] or "none"), str(each["times"]))
    return Group(Text(head, "bold"), table) if told["failures"] else Text(head, "bold")
