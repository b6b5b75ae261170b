"""What skopeo, podman and buildah share: the files of containers/image and containers/storage in /etc."""

import json

from lab.clients.cell import Cell
from lab.clients.client import Door, Way

_STORAGE = """\
[storage]
driver = "overlay"
runroot = "{directory}/run"
graphroot = "{directory}/graph"
"""
_MIRROR = """\
[[registry]]
location = "{registry}"
[[registry.mirror]]
location = "{mirror}/{registry}"
insecure = true
"""


def configure(cell: Cell) -> None:
    """Give the cell a storage in its own directory, and trust in unsigned images."""
    cell.write("/etc/containers/policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    cell.write("/etc/containers/storage.conf", _STORAGE.format(directory=cell.directory))
    cell.write("/etc/containers/containers.conf", '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
    cell.write("/etc/containers/registries.conf", "unqualified-search-registries = []\n")


def lead(cell: Cell, way: Way, registry: str) -> None:
    """Send what is asked of `registry` the given way: the path of the mirror's URL begins with the registry's name."""
    if way.door is Door.MIRROR:
        cell.write("/etc/containers/registries.conf", _MIRROR.format(registry=registry, mirror=way.address))
