"""The commands that bring images in or take them out: warm, export, import."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from regproxy.cli import render
from regproxy.cli.api import Api, ApiError
from regproxy.cli.exporting import described, export
from regproxy.cli.image_lists import compose_images, kubernetes_images, listed_images
from regproxy.cli.importing import bring, plan, total_bytes
from regproxy.cli.interpolation import parse_env
from regproxy.cli.layouts import opened
from regproxy.cli.session import AsJson, api_of, byte_progress, show
from regproxy.cli.warming import warm as warm_all

_COUNTING = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
_IMAGE_FORMS = "registry/name:tag or registry/name@digest."

Platforms = Annotated[str | None, typer.Option("--platform", help="linux/amd64,linux/arm64, or all.")]


def warm(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    images: Annotated[list[str] | None, typer.Argument(help=_IMAGE_FORMS)] = None,
    file: Annotated[
        typer.FileText | None, typer.Option("--file", "-f", help="Images, one a line; - for standard input.")
    ] = None,
    from_kubernetes: Annotated[
        typer.FileText | None,
        typer.Option(help="Manifests of any kind with pods in it; - for standard input: kubectl get pods -A -o yaml."),
    ] = None,
    compose: Annotated[typer.FileText | None, typer.Option(help="A compose file; .env beside it counts.")] = None,
    platforms: Annotated[
        str | None, typer.Option("--platform", help="linux/amd64,linux/arm64, or all. Default: the proxy's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pull images into the cache before they are needed. What is stored is not asked for again."""
    wanted = [*(images or ()), *listed_images(file or ())]
    try:
        wanted += [] if from_kubernetes is None else kubernetes_images(from_kubernetes.read())
        wanted += [] if compose is None else _of_compose(compose)
    except (ValueError, OSError) as error:
        raise ApiError(str(error)) from None
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise typer.BadParameter("say what: images, --file, --from-kubernetes or --compose, with an image in it")
    _show_warmed(warmed(api_of(context), wanted, platforms, quiet=as_json), as_json=as_json)


def export_images(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(help=f"{_IMAGE_FORMS} A repository is all of its tags.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new file that ends in .tar, or a directory.")],
    platforms: Platforms = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="First warm the images, so that nothing is missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write images from the store as an OCI image layout. Without --platform, the platforms that are stored."""
    api = api_of(context)
    if fetch:
        brought = warmed(api, images, platforms, quiet=as_json)
        if any(each["state"] == "failed" for each in brought):
            _show_warmed(brought, as_json=as_json)
    told = described(api, images, platforms)
    if told["missing"]:
        show(told, render.not_exported, as_json=as_json)
        raise typer.Exit(1)
    with byte_progress(quiet=as_json) as progress:
        task = progress.add_task("export", total=sum(each["size_bytes"] for each in told["contents"]))
        export(api, told, output, lambda count_bytes: progress.advance(task, count_bytes))
    show({**told, "output": str(output)}, render.exported, as_json=as_json)


def import_images(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="An OCI image layout: a directory, or a tar of one.")],
    name: Annotated[str | None, typer.Option(help="What the image is to be called: registry/repository:tag.")] = None,
    reference: Annotated[str | None, typer.Option("--ref", help="The image in the layout, by its name there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring images from a layout to the store, where no registry is reached. Every digest is checked."""
    api = api_of(context)
    with opened(source) as layout:
        images = plan(layout, name, reference)
        total = total_bytes(layout, images)
        with byte_progress(quiet=as_json) as progress:
            task = progress.add_task("import", total=total)
            done: set[Any] = set()
            for image in images:
                bring(api, layout, image, lambda count_bytes: progress.advance(task, count_bytes), done)
    told = {"images": [{"image": each.name, "digest": str(each.entry.digest)} for each in images], "size_bytes": total}
    show(told, render.imported, as_json=as_json)


def _of_compose(file: typer.FileText) -> list[str]:
    name = getattr(file, "name", "-")
    beside = Path(name).with_name(".env")
    values = parse_env(beside.read_text()) if name not in ("-", "<stdin>") and beside.is_file() else {}
    found = compose_images(file.read(), {**values, **os.environ})
    for service in found.built:
        sys.stderr.write(f"{service}: has no image to pull, it is built\n")
    return list(found.images)


def warmed(api: Api, images: list[str], platforms: str | None, *, quiet: bool) -> list[dict[str, Any]]:
    """Warm images, wait for the end, and return what became of each."""
    told: dict[str, Any] = {}
    with Progress(*_COUNTING, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        overall = progress.add_task("images", total=len(images))
        tasks: dict[str, Any] = {}
        for told in warm_all(api, images, platforms):
            for asked, each in told.items():
                task = tasks.get(asked)
                if task is None:
                    task = tasks[asked] = progress.add_task(asked, total=None)
                is_running = each["state"] == "running"
                progress.update(task, completed=each["stored"], total=each["contents"], visible=is_running)
            progress.update(overall, completed=sum(each["state"] != "running" for each in told.values()))
    return list(told.values())


def _show_warmed(brought: list[dict[str, Any]], *, as_json: bool) -> None:
    show({"images": brought}, render.warmed, as_json=as_json)
    if any(each["state"] == "failed" for each in brought):
        raise typer.Exit(1)
