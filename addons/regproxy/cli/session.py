"""What all commands share: which proxy is asked, and how answers are shown."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from regproxy.cli.api import Api, find_token

PIPE_COLUMNS = 500

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]


def api_of(context: typer.Context) -> Api:
    """Return the proxy that the command line means. Raises ApiError."""
    return Api(str(context.obj), find_token())


def show(told: Mapping[str, Any], rendered: Callable[[Mapping[str, Any]], RenderableType], *, as_json: bool) -> None:
    """Show an answer, or print it."""
    if as_json:
        sys.stdout.write(f"{json.dumps(told, indent=2)}\n")
    else:
        console_of().print(rendered(told))


def console_of() -> Console:
    """Return where answers are shown; what goes into a file or a pipe is not folded at 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=PIPE_COLUMNS)


def byte_progress(*, quiet: bool) -> Progress:
    """Return a bar that counts bytes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )
