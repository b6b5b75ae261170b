"""The commands. Each asks the API once, or until it has seen enough, and shows the answer or, with `--json`, prints it.

Exit code 0: done; 1: it could not be done, or `verify` found something wrong; 2: the command line is wrong.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from regproxy import __version__
from regproxy.cli import outages, render
from regproxy.cli.api import Api, ApiError, default_url, find_token

POLL_S = 0.2
PIPE_COLUMNS = 500
WAIT = "25s"
"""How long `tail` lets the proxy wait for the next request before it asks again."""

app = typer.Typer(
    help="Look at a registry-proxy and steer it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COUNTING = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]
Target = Annotated[
    str, typer.Argument(help="registry/name:tag, registry/name@digest, registry/name, a registry, or a digest.")
]
AnyTarget = Annotated[str | None, typer.Argument(help="As for purge; all, when it is left out.")]


@app.callback()
def _choose(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="Where the proxy is. Default: REGISTRY_PROXY_URL, or port 3128 of this machine.")
    ] = None,
) -> None:
    """Look at a registry-proxy and steer it. A proxy elsewhere wants its ADMIN_TOKEN, or ADMIN_TOKEN_FILE."""
    context.obj = url or default_url()


@app.command()
def version() -> None:
    """Print the version of this command."""
    sys.stdout.write(f"{__version__}\n")


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Version, cache use, requests, upstreams that do not answer, quotas, downloads."""
    _show(_api(context).ask("GET", "/status"), render.status, as_json=as_json)


@app.command("ls")
def list_images(context: typer.Context, target: AnyTarget = None, as_json: AsJson = False) -> None:
    """Which images are stored: tags with digest, size, ages."""
    _show(_api(context).ask("GET", "/images", target=target), render.images, as_json=as_json)


@app.command()
def why(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="An image, a digest, or the id in X-Registry-Proxy-Request-Id.")],
    as_json: AsJson = False,
) -> None:
    """Why an answer was as it was, or would be now."""
    _show(_api(context).ask("GET", "/why", subject=subject), render.why, as_json=as_json)


@app.command()
def purge(
    context: typer.Context,
    target: AnyTarget = None,
    older_than: Annotated[str | None, typer.Option(help="Only what was not used for so long: 30d, 12h.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove images; blobs go with the last image that needs them. What is pinned stays."""
    if target is None and older_than is None:
        raise typer.BadParameter("say what: a target, --older-than, or both")
    flag = "true" if dry_run else None
    told = _api(context).ask("POST", "/purge", target=target, older_than=older_than, dry_run=flag)
    _show(told, render.purged, as_json=as_json)


@app.command()
def pin(context: typer.Context, target: Target, as_json: AsJson = False) -> None:
    """Never evict an image, a repository, a registry or a digest; also before it is there."""
    told = _api(context).ask("PUT", "/pins", target=target)
    _show(told, lambda made: render.pins({"pins": [made]}), as_json=as_json)


@app.command()
def unpin(context: typer.Context, target: Target, as_json: AsJson = False) -> None:
    """Evict it again when its time comes."""
    _show(_api(context).ask("DELETE", "/pins", target=target), render.pins, as_json=as_json)


@app.command()
def pins(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is pinned."""
    _show(_api(context).ask("GET", "/pins"), render.pins, as_json=as_json)


@app.command()
def verify(context: typer.Context, as_json: AsJson = False) -> None:
    """Hash all that is stored anew. What is wrong is removed, and the next pull brings it again."""
    api = _api(context)
    told = api.ask("POST", "/verification")
    with _progress(quiet=as_json) as progress:
        task = progress.add_task("verify", total=None)
        while told["state"] == "running":
            progress.update(task, completed=told["checked_bytes"], total=told["total_bytes"] or None)
            time.sleep(POLL_S)
            told = api.ask("GET", "/verification")
        progress.update(task, completed=told["checked_bytes"], total=told["total_bytes"])
    _show(told, render.verification, as_json=as_json)
    if told["removed"] or told["error"]:
        raise typer.Exit(1)


@app.command()
def warm(
    context: typer.Context,
    images: Annotated[list[str] | None, typer.Argument(help="registry/name:tag or registry/name@digest.")] = None,
    file: Annotated[
        typer.FileText | None, typer.Option("--file", "-f", help="Images, one a line; - for standard input.")
    ] = None,
    platforms: Annotated[
        str | None, typer.Option("--platform", help="linux/amd64,linux/arm64, or all. Default: the proxy's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pull images into the cache before they are needed. What is stored is not asked for again."""
    lines = (line.partition("#")[0].strip() for line in file or ())
    wanted = list(dict.fromkeys([*(images or ()), *filter(None, lines)]))
    if not wanted:
        raise typer.BadParameter("say what: images, or --file")
    api = _api(context)
    told = _warm(api, dict.fromkeys(wanted, platforms), quiet=as_json)
    _show({"images": told}, render.warmed, as_json=as_json)
    if any(each["state"] == "failed" for each in told):
        raise typer.Exit(1)


def _warm(api: Api, wanted: Mapping[str, str | None], *, quiet: bool) -> list[Any]:
    """Warm images, each with its platforms, and wait for the end."""
    begun = [
        api.ask("POST", "/warmings", target=image, platforms=platforms)["images"][0]
        for image, platforms in wanted.items()
    ]
    with Progress(*_COUNTING, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        tasks = {each["image"]: progress.add_task(each["image"], total=None) for each in begun}
        while True:
            told = [each for each in api.ask("GET", "/warmings")["images"] if each["image"] in tasks]
            for each in told:
                progress.update(tasks[each["image"]], completed=each["stored"], total=each["contents"])
            if all(each["state"] != "running" for each in told):
                return told
            time.sleep(POLL_S)


@app.command()
def readiness(
    context: typer.Context,
    target: AnyTarget = None,
    window: Annotated[
        str | None, typer.Option(help="What was pulled within: 7d, 12h. Default: READINESS_WINDOW.")
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Pull what is missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Which images that are in use would come from the cache while their registry is away; 1 if one would not."""
    api = _api(context)
    told = api.ask("GET", "/readiness", target=target, window=window)
    wanting = [each for each in told["images"] if each["state"] == "incomplete"]
    if fill and wanting:
        platforms = {each["image"]: ",".join(each["platforms"]) or None for each in wanting}
        warmed = _warm(api, platforms, quiet=as_json)
        if not as_json:
            _console().print(render.warmed({"images": warmed}))
        told = api.ask("GET", "/readiness", target=target, window=window)
    _show(told, outages.readiness, as_json=as_json)
    if told["ready"] < len(told["images"]):
        raise typer.Exit(1)


@app.command()
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
    api = _api(context)
    if not clients:
        told = api.ask("GET", "/readiness", target=registry)
        _show(told, outages.readiness, as_json=as_json)
        raise typer.Exit(int(told["ready"] < len(told["images"])))
    told = api.ask("POST", "/drills", target=registry, clients=",".join(clients), duration=duration)["drills"]
    name = told[0]["registry"] if len(told) == 1 else next(each["registry"] for each in told if each["under_way"])
    try:
        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            while (drilled := _drill_of(api, name))["under_way"]:
                if not as_json:
                    live.update(outages.drill(drilled), refresh=True)
                time.sleep(1.0)
    except KeyboardInterrupt:
        api.ask("DELETE", "/drills", target=registry)
        drilled = _drill_of(api, name)
    _show(drilled, outages.drill, as_json=as_json)
    raise typer.Exit(int(drilled["failed"] > 0))


def _drill_of(api: Api, registry: str) -> Any:
    return next(each for each in api.ask("GET", "/drills")["drills"] if each["registry"] == registry)


@app.command()
def tail(
    context: typer.Context,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with so many of the last ones.")] = 10,
    follow: Annotated[bool, typer.Option(help="Go on with what comes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show requests as they end; with --json one a line."""
    api, console = _api(context), _console()
    told = api.ask("GET", "/requests")
    told = api.ask("GET", "/requests", after=str(max(0, told["newest"] - lines)))
    while True:
        for request in told["requests"]:
            if as_json:
                sys.stdout.write(f"{json.dumps(request)}\n")
            else:
                console.print(render.request_line(request), soft_wrap=True)
        sys.stdout.flush()
        if not follow:
            return
        told = api.ask("GET", "/requests", after=str(told["newest"]), wait=WAIT)


def main() -> None:
    """Run a command; an error is one line, not a traceback."""
    try:
        app(prog_name="registry-proxy")
    except ApiError as error:
        render.complain(Console(stderr=True), str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _api(context: typer.Context) -> Api:
    return Api(str(context.obj), find_token())


def _show(told: Mapping[str, Any], rendered: Callable[[Mapping[str, Any]], RenderableType], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(f"{json.dumps(told, indent=2)}\n")
    else:
        _console().print(rendered(told))


def _console() -> Console:
    """Return where answers are shown; what goes into a file or a pipe is not folded at 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=PIPE_COLUMNS)


def _progress(*, quiet: bool) -> Progress:
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
