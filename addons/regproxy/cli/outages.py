"""The commands about outages: readiness and drill."""

import time
from collections import defaultdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from regproxy.cli import outage_tables, render
from regproxy.cli.api import Api
from regproxy.cli.session import AsJson, api_of, console_of, show
from regproxy.cli.transfer import warmed

LOOK_S = 1.0


def readiness(
    context: typer.Context,
    target: Annotated[str | None, typer.Argument(help="As for purge; all, when it is left out.")] = None,
    window: Annotated[
        str | None, typer.Option(help="What was pulled within: 7d, 12h. Default: READINESS_WINDOW.")
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Pull what is missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Which images that are in use would come from the cache while their registry is away; 1 if one would not."""
    api = api_of(context)
    told = api.ask("GET", "/readiness", target=target, window=window)
    wanting = [each for each in told["images"] if each["state"] == "incomplete"]
    if fill and wanting:
        _fill(api, wanting, as_json=as_json)
        told = api.ask("GET", "/readiness", target=target, window=window)
    show(told, outage_tables.readiness, as_json=as_json)
    if told["ready"] < len(told["images"]):
        raise typer.Exit(1)


def _fill(api: Api, wanting: list[Any], *, as_json: bool) -> None:
    by_platforms: dict[str, list[str]] = defaultdict(list)
    for each in wanting:
        by_platforms[",".join(each["platforms"])].append(each["image"])
    for platforms, images in by_platforms.items():
        brought = warmed(api, images, platforms or None, quiet=as_json)
        if not as_json:
            console_of().print(render.warmed({"images": brought}))


def drill(
    context: typer.Context,
    registry: Annotated[str, typer.Option(help="The registry that is to be away.")],
    clients: Annotated[
        list[str] | None,
        typer.Option(
            "--client", help="Who takes part: an address or a network. Without it nobody: what would fail is listed."
        ),
    ] = None,
    duration: Annotated[str, typer.Option("--for", help="For how long: 10m, 90s.")] = "10m",
    as_json: AsJson = False,
) -> None:
    """Let a registry be away for chosen clients, until Ctrl-C, and list what they do not get; 1 if anything."""
    api = api_of(context)
    if not clients:
        told = api.ask("GET", "/readiness", target=registry)
        show(told, outage_tables.readiness, as_json=as_json)
        raise typer.Exit(int(told["ready"] < len(told["images"])))
    begun = api.ask("POST", "/drills", target=registry, clients=",".join(clients), duration=duration)
    name = max(begun["drills"], key=lambda each: each["remaining_s"])["registry"]
    try:
        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            while (drilled := _drill_of(api, name))["under_way"]:
                if not as_json:
                    live.update(outage_tables.drill(drilled), refresh=True)
                time.sleep(LOOK_S)
    except KeyboardInterrupt:
        api.ask("DELETE", "/drills", target=registry)
        drilled = _drill_of(api, name)
    show(drilled, outage_tables.drill, as_json=as_json)
    raise typer.Exit(int(drilled["failed"] > 0))


def _drill_of(api: Api, registry: str) -> Any:
    return next(each for each in api.ask("GET", "/drills")["drills"] if each["registry"] == registry)
