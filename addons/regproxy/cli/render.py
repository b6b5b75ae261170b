"""Answers of the API as people read them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_STATUS_STYLES: Mapping[str, str] = {
    "HIT": "green",
    "REVALIDATED": "green",
    "MISS": "yellow",
    "EXPIRED": "yellow",
    "STALE": "magenta",
    "BYPASS": "cyan",
}


def size(count_bytes: float | None) -> str:
    """Return bytes as people write them, in binary units."""
    if count_bytes is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count_bytes < 1024:
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:.1f} TiB"


def age(seconds: float | None) -> str:
    """Return a time span in its largest unit that has two digits' worth to say."""
    if seconds is None:
        return "-"
    for unit, length_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f}{unit}"
    return f"{seconds:.0f}s"


def _pairs(**rows: object) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), Text(str(value)))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def status(told: Mapping[str, Any]) -> RenderableType:
    """Show what the proxy does."""
    cache, requests = told["cache"], told["requests"]
    counts = ", ".join(f"{count} {name}" for name, count in requests["by_cache_status"].items())
    parts: list[RenderableType] = [
        _pairs(
            version=told["version"],
            up=age(told["uptime_s"]),
            **_workers(told["workers"]),
            cache=f"{size(cache['used_bytes'])} of {size(cache['cap_bytes'])} in {cache['directory']}",
            oldest_use=age(cache["oldest_use_age_s"]),
            **_shared_store(told["shared_store"]),
            pins=cache["pins"],
            requests=f"{requests['total']}" + (f" ({counts})" if counts else ""),
            sent=size(requests["sent_bytes"]),
            fetched=size(sum(requests["fetched_bytes"].values())),
        )
    ]
    parts += [
        Text(f"no answer: {each['upstream']}, {age(each['age_s'])}: {each['reason']}", "red")
        for each in told["breakers"]
    ]
    parts += [
        Text(f"left alone: {each['registry']} ({each['account']}) for {age(each['remaining_s'])}", "yellow")
        for each in told["rests"]
    ]
    parts += [
        Text(f"quota: {each['registry']} ({each['account']}): {each['remaining']} of {each['limit'] or '?'} left")
        for each in told["quotas"]
    ]
    parts += [
        Text(f"download: {each['digest']} {size(each['arrived_bytes'])} of {size(each['size_bytes'])}")
        for each in told["ingests"]
    ]
    return Group(*parts)


def _shared_store(told: Mapping[str, Any] | None) -> dict[str, str]:
    if told is None:
        return {}
    state = "answers" if told["reading"] and told["writing"] else "takes nothing" if told["reading"] else "no answer"
    more = f"{told['reads']['found']} read ({size(told['read_bytes'])}), {told['waiting']} to be written"
    return {"shared_store": f"{told['url']}: {state}, {more}"}


def _workers(workers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name the processes, if there are several."""
    if len(workers) < 2:
        return {}
    named = (
        f"{each['number']} (process {each['pid']}, up {age(each['uptime_s'])}, {each['requests']} requests, "
        f"{size(each['memory_bytes'])})"
        for each in workers
    )
    return {"workers": ", ".join(named)}


def images(told: Mapping[str, Any]) -> RenderableType:
    """Show a list of images."""
    if not told["images"]:
        return Text("nothing stored")
    table = _table("IMAGE", "DIGEST", "SIZE", "CHECKED", "USED", "")
    for image in told["images"]:
        marks = ["pinned"] * image["pinned"] + ["parts"] * (not image["complete"])
        table.add_row(
            Text(image["image"]),
            image["digest"][:19],
            size(image["size_bytes"]),
            age(image["checked_age_s"]),
            age(image["used_age_s"]),
            ", ".join(marks),
        )
    return Group(table, Text(f"{len(told['images'])} images, {size(told['size_bytes'])} together", "dim"))


def why(told: Mapping[str, Any]) -> RenderableType:
    """Show an explanation."""
    parts: list[RenderableType] = []
    if told["request"] is not None:
        parts.append(_request_pairs(told["request"]))
    parts += [_image_pairs(each) for each in told["images"]]
    content = told["content"]
    if content is not None:
        parts.append(
            _pairs(
                content=content["digest"],
                type=content["media_type"] or "blob",
                size=size(content["size_bytes"]),
                used=age(content["used_age_s"]),
                pinned="yes" if content["pinned"] else "no",
                needed_by=", ".join(content["needed_by"]) or "no image that is known",
            )
        )
    elif told["downloading"]:
        parts.append(Text("being downloaded now"))
    elif not told["images"]:
        parts.append(Text("not stored: the next request asks the registry"))
    if told["requests"]:
        parts += [Text("last requests", "bold"), *(request_line(each) for each in told["requests"][:10])]
    return Group(*parts)


def _request_pairs(request: Mapping[str, Any]) -> Table:
    return _pairs(
        request=request["request_id"],
        asked=f"{request['method']} {request['registry']}{request['path']}, {age(request['age_s'])} ago",
        answer=f"{request['status'] or 'none'}, {size(request['sent_bytes'])} in {request['duration_s']:.3f} s",
        saved=size(request["saved_bytes"]),
        because=request["words"],
        upstream=request["upstream"] or "not asked",
        login=request["credential"] or "nobody's",
    )


def _image_pairs(each: Mapping[str, Any]) -> Table:
    image = each["image"]
    lifetime = "for good" if each["lifetime_s"] is None else f"{age(each['lifetime_s'])} (tier {each['tier']})"
    return _pairs(
        image=image["image"],
        digest=image["digest"],
        size=f"{size(image['size_bytes'])}, " + ("complete" if image["complete"] else "not complete"),
        missing=", ".join(each["missing"]) or "nothing",
        holds=lifetime if each["tier"] != "asked each time" else "the registry is asked each time",
        checked=f"{age(image['checked_age_s'])} ago" if image["checked_age_s"] is not None else "needs no check",
        now="fresh" if each["fresh"] else "asked for anew by the next request",
        previous=each["previous"] or "-",
        fetched_from=each["upstream"] or "not known",
        login=each["credential"] or "nobody's",
        pinned="yes" if image["pinned"] else "no",
        readers=each["readers"] or "whoever may use the proxy and is let in by the registry",
    )


def purged(told: Mapping[str, Any]) -> RenderableType:
    """Show what went, or would go."""
    verb = "would go" if told["dry_run"] else "gone"
    parts: list[RenderableType] = [Text(f"{verb}: {image}") for image in told["images"]]
    parts += [Text(f"pinned, stays: {image}", "yellow") for image in told["pinned"]]
    parts.append(Text(f"{verb}: {len(told['contents'])} contents, {size(told['freed_bytes'])}", "bold"))
    match told["shared_store"]:
        case True:
            parts.append(Text("gone from the shared store, too; the disks of other replicas have it still"))
        case False:
            parts.append(Text("not gone from the shared store, which gives no answer: purge again when it does", "red"))
        case _:
            pass
    return Group(*parts)


def pins(told: Mapping[str, Any]) -> RenderableType:
    """Show what is pinned."""
    if not told["pins"]:
        return Text("nothing is pinned")
    table = _table("TARGET", "STORED", "SIZE", "PINNED")
    for each in told["pins"]:
        stored = f"{each['stored']} of {each['contents']}"
        table.add_row(Text(each["target"]), stored, size(each["size_bytes"]), f"{age(each['age_s'])} ago")
    return table


def warmed(told: Mapping[str, Any]) -> RenderableType:
    """Show what came of warming."""
    table = _table("IMAGE", "", "STORED", "FETCHED", "")
    for each in told["images"]:
        state = Text(each["state"], "red" if each["state"] == "failed" else "green")
        stored = f"{each['stored']} of {each['contents']}"
        table.add_row(Text(each["image"]), state, stored, size(each["fetched_bytes"]), Text(each["error"], "red"))
    return table


def exported(told: Mapping[str, Any]) -> RenderableType:
    """Show what was exported."""
    parts: list[RenderableType] = [Text(f"{image['image']}  {image['digest'][:19]}") for image in told["images"]]
    together = size(sum(each["size_bytes"] for each in told["contents"]))
    parts.append(Text(f"{len(told['images'])} images, {together}, in {told['output']}", "bold"))
    return Group(*parts)


def not_exported(told: Mapping[str, Any]) -> RenderableType:
    """Show what is missing."""
    parts: list[RenderableType] = [
        Text(f"{each['image']}: {each['digest'] or ''} {each['reason']}", "red") for each in told["missing"]
    ]
    return Group(*parts, Text("nothing was written: --fetch brings what is missing first", "bold"))


def imported(told: Mapping[str, Any]) -> RenderableType:
    """Show what was imported."""
    parts: list[RenderableType] = [Text(f"{image['image']}  {image['digest'][:19]}") for image in told["images"]]
    return Group(*parts, Text(f"{len(told['images'])} images, {size(told['size_bytes'])}", "bold"))


def verification(told: Mapping[str, Any]) -> RenderableType:
    """Show how a verification ended."""
    parts: list[RenderableType] = [Text(f"removed, its digest was wrong: {each}", "red") for each in told["removed"]]
    if told["error"]:
        parts.append(Text(told["error"], "red"))
    checked = f"{told['checked']} of {told['total']} contents, {size(told['checked_bytes'])}"
    parts.append(Text(f"{checked} in {told['duration_s']:.1f} s: {len(told['removed'])} were wrong", "bold"))
    return Group(*parts)


def request_line(request: Mapping[str, Any]) -> Text:
    """Show one request on one line."""
    line = Text()
    line.append(f"{request['status'] or '---'} ", "red" if (request["status"] or 500) >= 400 else "")
    line.append(f"{request['cache_status'] or '-':<12}", _STATUS_STYLES.get(request["cache_status"], ""))
    line.append(f"{request['method']:<5}{request['registry']}{request['path']}")
    line.append(f" {size(request['sent_bytes'])} {request['duration_s']:.3f}s {request['client_ip']}", "dim")
    line.append(f" {request['request_id']}", "dim")
    if request["error"]:
        line.append(f" {request['error']}", "red")
    return line


def complain(console: Console, text: str) -> None:
    """Show an error."""
    console.print(f"[bold red]registry-proxy:[/] {escape(text)}", soft_wrap=True, highlight=False)
