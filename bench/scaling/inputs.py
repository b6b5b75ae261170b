"""What the model takes for given; `inputs.toml` has the figures and where each is from."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("inputs.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorCosts:
    """What a warm read costs one core, by one door."""

    new_s: float
    """A connection with one manifest."""
    new_more_for_worker_s: float
    """What a new connection costs more for each worker but the first (docs/performance.md says why)."""
    kept_s: float
    """A manifest on a connection that is there."""
    cpu_s_per_gib: float
    connection_bytes: float
    """Memory for a client that reads slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All of them, in bytes, seconds and 10^9 bits a second."""

    doors: Mapping[str, DoorCosts]
    base_bytes: float
    worker_bytes: float
    cold_cpu_s_per_gib: float
    """What a download from a registry costs, without what is sent of it."""
    bucket_cpu_s_per_gib: float
    download_bytes_s: float
    """The most that one download gives."""
    bucket_bytes_s: float
    line_gbit_s: float
    bucket_gbit_s: float
    layers_bytes: tuple[int, ...]
    layers_at_a_time: int
    node_gbit_s: float
    unpack_bytes_s: float

    def memory_bytes(self, workers: int, connections: float, door: DoorCosts) -> float:
        """Return the memory of one replica with so many clients that wait for the network."""
        supervisor_bytes = self.base_bytes if workers > 1 else 0.0
        return supervisor_bytes + workers * self.worker_bytes + connections * door.connection_bytes


def read_inputs(file: Path = FILE) -> Inputs:
    """Return the inputs of a file. Raises KeyError for a figure that is not there, TypeError for one too many."""
    document = tomllib.loads(file.read_text())
    doors = {name: DoorCosts(**costs) for name, costs in document.pop("doors").items()}
    flat = {name: value for section in document.values() for name, value in section.items()}
    return Inputs(doors=doors, layers_bytes=tuple(flat.pop("layers_bytes")), **flat)
