"""This project's proxy, started by `entrypoint.sh` with a clean environment."""

from collections.abc import Mapping

from bench.peers.base import Peer, Site, Target, through_forward_proxy
from bench.upstream import Door, mappings
from lab.proxy import Proxy


class _Ours:
    def __init__(self, proxy: Proxy, targets: Mapping[Door, Target]) -> None:
        self._proxy = proxy
        self.targets = targets

    def pids(self) -> list[int]:
        return self._proxy.pids()

    def close(self) -> None:
        self._proxy.close()


def _start(site: Site) -> _Ours:
    registries = (f"http://{door.authority}" if door is Door.PLAIN else door.authority for door in Door)
    proxy = Proxy(
        site.directory,
        {
            "REGISTRIES": " ".join(registries),
            "UPSTREAM_CA_FILE": str(site.upstream.pki.ca_file),
            "UPSTREAM_MAPPINGS": " ".join(mappings(site.upstream.addresses)),
            "ENABLE_MANIFEST_CACHE": "true",
        },
    )
    proxy.start()
    return _Ours(proxy, through_forward_proxy(site, proxy.address, proxy.ca_file))


OURS = Peer(
    name="ours",
    start=_start,
    difference=(
        "Started by `entrypoint.sh`, one process, defaults but for the names of the upstream and "
        "`ENABLE_MANIFEST_CACHE=true` (nginx caches tags in these rows, too)."
    ),
)
