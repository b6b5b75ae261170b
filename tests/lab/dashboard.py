"""The dashboard's document, as a script asks for it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.proxy import Proxy
from lab.proxy_log import access_log

DAY_S = 86400
_WAIT_S = 30.0
_POLL_S = 0.1

type Told = dict[str, Any]

OUTSIDE = {"X-Forwarded-For": "192.0.2.9"}
"""What makes a request from this machine one of somebody else."""


def ask_document(proxy: Proxy, headers: dict[str, str] | None = None) -> Told:
    """Return the document, with names unless `headers` say that another is asking."""
    answer = proxy.request("GET", "/_proxy/dashboard.json", headers)
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json"), answer
    told = json.loads(answer.body)
    assert isinstance(told, dict)
    return told


def wait_for_document(proxy: Proxy, is_wanted: Callable[[Told], bool]) -> Told:
    """Return the first document that is as wanted."""
    deadline_s = time.monotonic() + _WAIT_S
    while not is_wanted(told := ask_document(proxy)):
        assert time.monotonic() < deadline_s, told
        time.sleep(_POLL_S)
    return told


def log_lines(proxy: Proxy) -> list[dict[str, str]]:
    """Return the access log's lines about manifests and blobs."""
    return [line for line in access_log(proxy) if "/manifests/" in line["uri"] or "/blobs/" in line["uri"]]


def write_week(directory: Path, fetched_bytes: int, served_bytes: int) -> None:
    """Write the counters of a week before today, with so much on each day, growing a little, into a cache directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    today = int(time.time() // DAY_S)
    days = {
        str(today - back): {
            "hits": 900 - 60 * back,
            "misses": 40 + 5 * back,
            "served_bytes": served_bytes * (10 - back) // 10,
            "fetched_bytes": fetched_bytes,
            "errors": back,
        }
        for back in range(1, 8)
    }
    told = {"form": 1, "since_s": (today - 7) * DAY_S, "days": days}
    (directory / "statistics.json").write_text(json.dumps(told))


def hub_quota(remaining: int) -> tuple[tuple[str, str], ...]:
    """Return Docker Hub's fields."""
    return (
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", f"{remaining};w=21600"),
        ("docker-ratelimit-source", "192.0.2.1"),
    )


def pull(proxy: Proxy, reference: str, to: Path) -> None:
    """Pull with a skopeo that knows no blob yet."""
    proxy.skopeo(f"skopeo-{to.name}").pull(reference, to)
