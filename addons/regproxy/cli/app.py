"""The commands. Each asks the API once, or until it has seen enough, and shows the answer or, with `--json`, prints it.

Exit code 0: done; 1: it could not be done, `verify` found something wrong, `export` something missing; 2: the command
line is wrong.
"""

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from regproxy import __version__
from regproxy.cli import render
from regproxy.cli.api import ApiError, default_url
from regproxy.cli.outages import drill, readiness
from regproxy.cli.session import AsJson, api_of, byte_progress, console_of, show
from regproxy.cli.transfer import export_images, import_images, warm

POLL_S = 0.2
WAIT = "25s"
"""How long `tail` lets the proxy wait for the next request before it asks again."""

app = typer.Typer(
    help="Look at a registry-proxy and steer it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    show(api_of(context).ask("GET", "/status"), render.status, as_json=as_json)


@app.command("ls")
def list_images(context: typer.Context, target: AnyTarget = None, as_json: AsJson = False) -> None:
    """Which images are stored: tags with digest, size, ages."""
    show(api_of(context).ask("GET", "/images", target=target), render.images, as_json=as_json)


@app.command()
def why(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="An image, a digest, or the id in X-Registry-Proxy-Request-Id.")],
    as_json: AsJson = False,
) -> None:
    """Why an answer was as it was, or would be now."""
    show(api_of(context).ask("GET", "/why", subject=subject), render.why, as_json=as_json)


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
    told = api_of(context).ask("POST", "/purge", target=target, older_than=older_than, dry_run=flag)
    show(told, render.purged, as_json=as_json)


@app.command()
def pin(context: typer.Context, target: Target, as_json: AsJson = False) -> None:
    """Never evict an image, a repository, a registry or a digest; also before it is there."""
    told = api_of(context).ask("PUT", "/pins", target=target)
    show(told, lambda made: render.pins({"pins": [made]}), as_json=as_json)


@app.command()
def unpin(context: typer.Context, target: Target, as_json: AsJson = False) -> None:
    """Evict it again when its time comes."""
    show(api_of(context).ask("DELETE", "/pins", target=target), render.pins, as_json=as_json)


@app.command()
def pins(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is pinned."""
    show(api_of(context).ask("GET", "/pins"), render.pins, as_json=as_json)


@app.command()
def verify(context: typer.Context, as_json: AsJson = False) -> None:
    """Hash all that is stored anew. What is wrong is removed, and the next pull brings it again."""
    api = api_of(context)
    told = api.ask("POST", "/verification")
    with byte_progress(quiet=as_json) as progress:
        task = progress.add_task("verify", total=None)
        while told["state"] == "running":
            progress.update(task, completed=told["checked_bytes"], total=told["total_bytes"] or None)
            time.sleep(POLL_S)
            told = api.ask("GET", "/verification")
        progress.update(task, completed=told["checked_bytes"], total=told["total_bytes"])
    show(told, render.verification, as_json=as_json)
    if told["removed"] or told["error"]:
        raise typer.Exit(1)


app.command()(warm)
app.command("export")(export_images)
app.command("import")(import_images)
app.command()(readiness)
app.command()(drill)


@app.command()
def tail(
    context: typer.Context,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with so many of the last ones.")] = 10,
    follow: Annotated[bool, typer.Option(help="Go on with what comes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show requests as they end; with --json one a line."""
    api, console = api_of(context), console_of()
    told = api.ask("GET", "/requests", last=str(lines))
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
