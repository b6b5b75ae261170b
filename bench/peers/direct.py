"""No proxy: clients ask the upstream itself."""

from collections.abc import Mapping

from bench.peers.base import Peer, Site, Target, instead_of_upstream
from bench.upstream import Door


class _Direct:
    def __init__(self, targets: Mapping[Door, Target]) -> None:
        self.targets = targets

    def pids(self) -> list[int]:
        return []

    def close(self) -> None:
        """Leave the upstream alone: it is everybody's."""


def _start(site: Site) -> _Direct:
    return _Direct(instead_of_upstream(site, {door: site.upstream.addresses[door] for door in site.doors}))


DIRECT = Peer(
    name="direct",
    start=_start,
    caches=False,
    is_proxy=False,
    difference=(
        "The upstream is nginx with static files on the same machine, without the distance, the token exchange and the "
        "redirect to a storage service that a real registry has."
    ),
)
