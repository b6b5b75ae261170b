"""The table of all settings as the README has it; `python -m regproxy.settings table` prints it."""

from regproxy.settings.setting import FILE_SUFFIX, Setting
from regproxy.settings.table import SETTINGS_TABLE


def markdown_rows() -> tuple[str, ...]:
    """Return the table of the README, one line each, with its two head lines; what has no effect is one row."""
    head = ("| Variable | Default | Meaning |", "| --- | --- | --- |")
    rows = tuple(
        f"| `{row.variable}` | {_markdown_default(row)} | {_markdown_meaning(row)} |"
        for row in SETTINGS_TABLE
        if not row.ignored
    )
    names = ", ".join(f"`{row.variable}`" for row in SETTINGS_TABLE if row.ignored)
    return (*head, *rows, f"| {names} | | Accepted because predecessors had them, no effect |")


def _markdown_meaning(setting: Setting) -> str:
    notes = [f"also `{alias}`" for alias in setting.aliases]
    if setting.secret:
        notes.append(f"or a file with it: `{setting.variable}{FILE_SUFFIX}`")
    return f"{setting.meaning} ({'; '.join(notes)})" if notes else setting.meaning


def _markdown_default(setting: Setting) -> str:
    if not setting.default:
        return setting.default_note
    if not setting.default.strip():
        return "one blank"
    # A bar would end the cell even in a code span.
    return f"`{setting.default.replace('|', r'\|')}`"
