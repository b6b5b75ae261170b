"""Two replicas that share a bucket of SeaweedFS: one blob cold through A, from the bucket through B, and warm.

The engine, both replicas, the registry and the clients share the machine's cores: what these rows say is what each way
costs the proxy, and how the ways compare.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import procfs
from bench.clients import ClientError, curl
from bench.peers import Target
from bench.scaling.workers import mirrored
from bench.stage import Stage
from bench.upstream import Door, mappings
from lab.proxy import Proxy
from lab.seaweed import Seaweed, names_in

SUBJECT = "two replicas"

_GIB = 1 << 30
_BUCKET = "shared"
_WRITTEN_LIMIT_S = 240.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two proxies, and what they share."""

    first: Proxy
    second: Proxy
    engine: Seaweed


@contextmanager
def started(stage: Stage, directory: Path) -> Iterator[Replicas]:
    """Yield two replicas with empty caches."""
    with Seaweed(directory / "engine") as engine:
        settings = {
            "REGISTRIES": Door.FAST.authority,
            "UPSTREAM_CA_FILE": str(stage.upstream.pki.ca_file),
            "UPSTREAM_MAPPINGS": " ".join(mappings(stage.upstream.addresses)),
            "ENABLE_MANIFEST_CACHE": "true",
            **engine.settings(_BUCKET),
        }
        with Proxy(directory / "first", settings) as first, Proxy(directory / "second", settings) as second:
            yield Replicas(first, second, engine)


def figures_of(stage: Stage, replicas: Replicas, repeat: int) -> Mapping[str, float]:
    """Pull a blob that nobody has, by the mirror door; ClientError when the second replica asks the registry."""
    size_bytes = stage.sizes.cold_blob_bytes
    path = stage.upstream.add_blob(f"bench/shared-{repeat}", size_bytes)
    figures: dict[str, float] = {}

    def pull(name: str, proxy: Proxy) -> None:
        before_s = procfs.cpu_s(proxy.pids())
        seconds = curl(Target("http", str(proxy.address), proxy.ca_file), mirrored(path))
        figures[f"{name}-speed"] = size_bytes / seconds / 1e6
        figures[f"{name}-cpu"] = (procfs.cpu_s(proxy.pids()) - before_s) * _GIB / size_bytes

    began_s, mark = time.monotonic(), stage.upstream.mark()
    pull("cold", replicas.first)
    _wait_until_written(replicas.engine, path)
    figures["written"] = time.monotonic() - began_s
    asked = stage.upstream.gets_since(mark, path)
    pull("bucket", replicas.second)
    if stage.upstream.gets_since(mark, path) != asked:
        raise ClientError("the second replica asked the registry for what is in the bucket")
    pull("warm", replicas.second)
    return figures


def _wait_until_written(engine: Seaweed, path: str) -> None:
    wanted, deadline_s = path.rpartition(":")[2], time.monotonic() + _WRITTEN_LIMIT_S
    while sum(wanted in name for name in names_in(engine.bucket(_BUCKET))) < 2:
        if time.monotonic() > deadline_s:
            raise ClientError(f"{path} is not in the bucket after {_WRITTEN_LIMIT_S} s")
        time.sleep(_POLL_S)
