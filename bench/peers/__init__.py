"""The proxies that are compared, each started as its users start it, as far as that is possible on one machine.

Where it is not, `difference` says so, and the results repeat it.
"""

from bench.peers.base import Instance, Peer, Site, Target
from bench.peers.direct import DIRECT
from bench.peers.docker_registry import DOCKER_REGISTRY
from bench.peers.mitmdump import MITMDUMP
from bench.peers.nginx import NGINX
from bench.peers.ours import OURS
from bench.peers.squid import SQUID

PEERS: tuple[Peer, ...] = (OURS, NGINX, DOCKER_REGISTRY, SQUID, MITMDUMP, DIRECT)

__all__ = ["OURS", "PEERS", "Instance", "Peer", "Site", "Target"]
