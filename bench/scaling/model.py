"""Many nodes pull one image at once: a model of flows that share limits. No I/O, no clock, no chance.

Bytes are a fluid. At every moment each flow (a layer on its way to the nodes of a cohort) gets as much as it can
without taking from a flow that has less: max-min fairness, which TCP comes near to with equal clients. The limits are

- a replica's network card, and its cores: what one core sends in a second is measured (`inputs.toml`);
- the line to the registries, and to the bucket, which all replicas share, and what one download gives at most;
- a node's network card; one connection is served by one worker, so by one core at most;
- with peers: what the nodes that hold a whole layer can send.

Nobody is sent more of a layer than has arrived at the proxy. A node pulls a few layers at a time, in order, and unpacks
one after the other. Nodes are spread evenly over replicas, and a replica's connections over its workers.
"""

import enum
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.scaling.inputs import Inputs
from bench.scaling.sharing import Limit, shares

_CLOSE_BYTES = 1.0
_CLOSE_S = 1e-9
_COHORTS = 80


class State(enum.StrEnum):
    """Where the image is when the first node asks."""

    COLD = "cold"
    """At the registry only."""
    BUCKET = "bucket"
    """In the bucket, as one replica has pulled it before, and on no disk."""
    WARM = "warm"
    """On every replica's disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Who pulls what from whom."""

    nodes: int
    replicas: int = 1
    workers: int = 4
    """Of each replica, each with a core."""
    nic_gbit_s: float = 10.0
    """Of each replica."""
    door: str = "mirror"
    """`mirror` (plain HTTP) or `tls`."""
    state: State = State.WARM
    line_gbit_s: float | None = None
    """To the registries; None as in the inputs."""
    node_gbit_s: float | None = None
    layers_bytes: tuple[int, ...] | None = None
    window_s: float = 0.0
    """All nodes begin within this time; 0 is at once."""
    has_peers: bool = False
    """Whether nodes serve each other whole layers (Spegel)."""
    seeds: int = 0
    """Other nodes, which have the image already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of it; figures of a replica are those of one of them."""

    last_node_s: float
    """Until the last node has pulled and unpacked, from the first start."""
    slowest_pull_s: float
    """The longest that a node takes, from its own start."""
    last_download_s: float
    last_answer_s: float
    """Until the last of the nodes that begin together has the answer to its first request."""
    upstream_bytes: float
    replica_sent_bytes: float
    replica_peak_gbit_s: float
    replica_cpu_s: float
    replica_peak_cores: float
    replica_memory_bytes: float
    replica_connections: float
    limit: str
    """What held the nodes up for most of the time."""


@dataclass(slots=True)
class _Flow:
    layer: int
    from_peers: bool
    got_bytes: float = 0.0


@dataclass(slots=True)
class _Cohort:
    nodes: float
    start_s: float
    flows: list[_Flow] = field(default_factory=list)
    next_layer: int = 0
    done_at_s: dict[int, float] = field(default_factory=dict)


def simulate(scenario: Scenario, inputs: Inputs) -> Outcome:
    """Return what becomes of a scenario. Raises KeyError for a door that has no figures."""
    return _Run(scenario, inputs).outcome()


class _Run:
    def __init__(self, scenario: Scenario, inputs: Inputs) -> None:
        self._s, self._in = scenario, inputs
        self._door = inputs.doors[scenario.door]
        self._layers = scenario.layers_bytes or inputs.layers_bytes
        self._node_bytes_s = _bytes_s(inputs.node_gbit_s if scenario.node_gbit_s is None else scenario.node_gbit_s)
        line_gbit_s = inputs.line_gbit_s if scenario.line_gbit_s is None else scenario.line_gbit_s
        from_bucket = scenario.state is State.BUCKET
        self._line_bytes_s = _bytes_s(inputs.bucket_gbit_s if from_bucket else line_gbit_s)
        self._one_fill_bytes_s = inputs.bucket_bytes_s if from_bucket else inputs.download_bytes_s
        self._fill_cpu = inputs.bucket_cpu_s_per_gib if from_bucket else inputs.cold_cpu_s_per_gib
        self._fill_cpu /= 1 << 30
        self._core_bytes_s = (1 << 30) / self._door.cpu_s_per_gib
        self._request_s = self._first_request_s() * 3 + self._door.kept_s * (len(self._layers) + 2)
        self._cohorts = self._all_cohorts()
        is_warm = scenario.state is State.WARM
        self._filled = {layer: float(size) if is_warm else 0.0 for layer, size in enumerate(self._layers)}
        self._filling: set[int] = set()
        self._now_s = 0.0
        self._held_s: defaultdict[str, float] = defaultdict(float)
        self._sent_bytes = self._filled_bytes = 0.0
        self._peak_bytes_s = self._peak_cores = self._most_connections = 0.0

    def outcome(self) -> Outcome:
        """Run to the end."""
        while any(cohort.next_layer < len(self._layers) or cohort.flows for cohort in self._cohorts):
            self._begin_flows()
            self._step()
        ready = [self._unpacked_s(cohort) for cohort in self._cohorts]
        downloaded_s = max(max(cohort.done_at_s.values()) for cohort in self._cohorts)
        self._held_s["unpacking at the node"] += max(ready) - downloaded_s
        replicas, request_cpu_s = self._s.replicas, self._s.nodes * self._request_s / self._s.replicas
        sent_bytes, filled_bytes = self._sent_bytes / replicas, self._filled_bytes
        return Outcome(
            last_node_s=max(ready),
            slowest_pull_s=max(at_s - cohort.start_s for at_s, cohort in zip(ready, self._cohorts, strict=True)),
            last_download_s=downloaded_s,
            last_answer_s=self._cohorts[0].nodes * self._first_request_s() / replicas / self._s.workers,
            upstream_bytes=filled_bytes * replicas if self._s.state is State.COLD else 0.0,
            replica_sent_bytes=sent_bytes,
            replica_peak_gbit_s=self._peak_bytes_s * 8 / 1e9,
            replica_cpu_s=request_cpu_s + sent_bytes / self._core_bytes_s + filled_bytes * self._fill_cpu,
            replica_peak_cores=self._peak_cores,
            replica_memory_bytes=self._in.memory_bytes(self._s.workers, self._most_connections, self._door),
            replica_connections=self._most_connections,
            limit=max(self._held_s, key=lambda name: (self._held_s[name], name)),
        )

    def _first_request_s(self) -> float:
        return self._door.new_s + self._door.new_more_for_worker_s * (self._s.workers - 1)

    def _all_cohorts(self) -> list[_Cohort]:
        """Cut the nodes into cohorts, small ones first: those that begin first are the ones that others get from."""
        count = _COHORTS if self._s.window_s else 1
        cohorts = []
        for number in range(count):
            begun, share = (number / count) ** 2, (2 * number + 1) / count**2
            nodes = self._s.nodes * share
            asking_s = nodes * self._request_s / self._s.replicas / self._s.workers
            cohorts.append(_Cohort(nodes, self._s.window_s * begun + asking_s))
        return cohorts

    def _begin_flows(self) -> None:
        for cohort in self._cohorts:
            if cohort.start_s > self._now_s + _CLOSE_S:
                continue
            while len(cohort.flows) < self._in.layers_at_a_time and cohort.next_layer < len(self._layers):
                layer = cohort.next_layer
                has_peers = self._s.has_peers and self._holders(layer) > 0
                cohort.flows.append(_Flow(layer, has_peers))
                cohort.next_layer += 1
                if not has_peers and self._filled[layer] < self._layers[layer] - _CLOSE_BYTES:
                    self._filling.add(layer)

    def _step(self) -> None:
        """Go on to the next moment at which something changes."""
        fill_bytes_s = self._fill_rate()
        flows = [(cohort, flow) for cohort in self._cohorts for flow in cohort.flows]
        rates, held_by = shares([cohort.nodes for cohort, _ in flows], self._limits(flows, fill_bytes_s))
        step_s = max(min(self._ahead_s(flows, rates, fill_bytes_s)), _CLOSE_S)
        self._note(flows, rates, held_by, step_s, fill_bytes_s)
        for (_, flow), rate in zip(flows, rates, strict=True):
            flow.got_bytes += rate * step_s
        self._fill(fill_bytes_s * step_s)
        self._now_s += step_s
        for cohort, flow in flows:
            if self._left_bytes(flow) <= _CLOSE_BYTES:
                cohort.flows.remove(flow)
                cohort.done_at_s[flow.layer] = self._now_s

    def _ahead_s(
        self, flows: Sequence[tuple[_Cohort, _Flow]], rates: Sequence[float], fill_bytes_s: float
    ) -> Iterator[float]:
        """Yield after how long each of the next changes comes, if the others did not."""
        for cohort in self._cohorts:
            if cohort.start_s > self._now_s + _CLOSE_S:
                yield cohort.start_s - self._now_s
        for layer in self._filling:
            yield (self._layers[layer] - self._filled[layer]) / fill_bytes_s
        for (_, flow), rate in zip(flows, rates, strict=True):
            yield self._left_bytes(flow) / rate
            gap_bytes = self._filled[flow.layer] - flow.got_bytes
            if flow.layer in self._filling and not flow.from_peers and gap_bytes > _CLOSE_BYTES and rate > fill_bytes_s:
                yield gap_bytes / (rate - fill_bytes_s)

    def _fill(self, arrived_bytes: float) -> None:
        """Let so many bytes of each layer that is on its way arrive at the replicas."""
        for layer in tuple(self._filling):
            self._filled[layer] += arrived_bytes
            self._filled_bytes += arrived_bytes
            if self._filled[layer] >= self._layers[layer] - _CLOSE_BYTES:
                self._filled[layer] = float(self._layers[layer])
                self._filling.discard(layer)

    def _fill_rate(self) -> float:
        """Return what each layer that is on its way to the replicas gets, in bytes a second."""
        if not self._filling:
            return math.inf
        line_bytes_s = min(self._line_bytes_s / self._s.replicas, _bytes_s(self._s.nic_gbit_s))
        return min(self._one_fill_bytes_s, line_bytes_s / len(self._filling))

    def _limits(self, flows: Sequence[tuple[_Cohort, _Flow]], fill_bytes_s: float) -> list[Limit]:
        replicas = self._s.replicas
        proxied = [number for number, (_, flow) in enumerate(flows) if not flow.from_peers]
        busy_cores = min(len(self._filling) * fill_bytes_s * self._fill_cpu, 0.9 * self._s.workers) if proxied else 0.0
        cores = (self._s.workers - (busy_cores if self._filling else 0.0)) * replicas
        limits = [
            Limit("network card of the replica", replicas * _bytes_s(self._s.nic_gbit_s), tuple(proxied)),
            Limit("cores of the replica", cores * self._core_bytes_s, tuple(proxied)),
        ]
        by_cohort: defaultdict[int, list[int]] = defaultdict(list)
        by_layer: defaultdict[int, list[int]] = defaultdict(list)
        for number, (cohort, flow) in enumerate(flows):
            by_cohort[id(cohort)].append(number)
            if flow.from_peers:
                by_layer[flow.layer].append(number)
            elif flow.layer in self._filling and self._filled[flow.layer] - flow.got_bytes <= _CLOSE_BYTES:
                limits.append(Limit("line to the registry", fill_bytes_s * cohort.nodes, (number,)))
            else:
                limits.append(Limit("one core for a connection", self._core_bytes_s * cohort.nodes, (number,)))
        for numbers in by_cohort.values():
            nodes = flows[numbers[0]][0].nodes
            limits.append(Limit("network card of the node", self._node_bytes_s * nodes, tuple(numbers)))
        for layer, numbers in by_layer.items():
            limits.append(Limit("peers", self._holders(layer) * self._node_bytes_s, tuple(numbers)))
        if by_layer:
            holders = self._s.seeds + sum(cohort.nodes for cohort in self._cohorts if cohort.done_at_s)
            every = tuple(number for numbers in by_layer.values() for number in numbers)
            limits.append(Limit("peers", holders * self._node_bytes_s, every))
        return [limit for limit in limits if limit.flows]

    def _note(
        self,
        flows: Sequence[tuple[_Cohort, _Flow]],
        rates: Sequence[float],
        held_by: Sequence[str],
        step_s: float,
        fill_bytes_s: float,
    ) -> None:
        replicas = self._s.replicas
        weights: defaultdict[str, float] = defaultdict(float)
        sent_bytes_s = connections = 0.0
        for (cohort, flow), rate, name in zip(flows, rates, held_by, strict=True):
            weights[name] += cohort.nodes
            if not flow.from_peers:
                sent_bytes_s += rate * cohort.nodes / replicas
                connections += cohort.nodes / replicas
        if weights:
            self._held_s[max(weights, key=lambda name: (weights[name], name))] += step_s
        self._sent_bytes += sent_bytes_s * step_s * replicas
        fill_cores = len(self._filling) * fill_bytes_s * self._fill_cpu if self._filling else 0.0
        self._peak_bytes_s = max(self._peak_bytes_s, sent_bytes_s)
        self._peak_cores = max(self._peak_cores, sent_bytes_s / self._core_bytes_s + fill_cores)
        self._most_connections = max(self._most_connections, connections)

    def _holders(self, layer: int) -> float:
        return self._s.seeds + sum(cohort.nodes for cohort in self._cohorts if layer in cohort.done_at_s)

    def _left_bytes(self, flow: _Flow) -> float:
        return self._layers[flow.layer] - flow.got_bytes

    def _unpacked_s(self, cohort: _Cohort) -> float:
        at_s = 0.0
        for layer, size_bytes in enumerate(self._layers):
            at_s = max(at_s, cohort.done_at_s[layer]) + size_bytes / self._in.unpack_bytes_s
        return at_s


def _bytes_s(gbit_s: float) -> float:
    return gbit_s * 1e9 / 8
