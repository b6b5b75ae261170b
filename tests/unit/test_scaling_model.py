"""The model of many nodes against what can be worked out by hand."""

from dataclasses import replace

import pytest
from bench.scaling.inputs import DoorCosts, Inputs, read_inputs
from bench.scaling.model import Scenario, State, simulate
from bench.scaling.sharing import Limit, shares

GIB = 1 << 30
NO_COSTS = DoorCosts(new_s=0.0, new_more_for_worker_s=0.0, kept_s=0.0, cpu_s_per_gib=1e-6, connection_bytes=1_000)
SIMPLE = Inputs(
    doors={"mirror": NO_COSTS, "tls": replace(NO_COSTS, cpu_s_per_gib=GIB / 1e9)},
    base_bytes=10,
    worker_bytes=100,
    cold_cpu_s_per_gib=0.0,
    bucket_cpu_s_per_gib=0.0,
    download_bytes_s=1e12,
    bucket_bytes_s=50e6,
    line_gbit_s=0.8,
    bucket_gbit_s=1000.0,
    layers_bytes=(1_000_000_000,),
    layers_at_a_time=3,
    node_gbit_s=1000.0,
    unpack_bytes_s=1e15,
)
"""One layer of 1 GB, and no limit but those that a test sets; a core sends 1 GB/s by TLS."""


def test_shares_are_max_min_fair() -> None:
    """What a flow cannot use is the others', and of several of a kind each gets the same."""
    limits = [Limit("all", 100.0, (0, 1, 2)), Limit("first", 10.0, (0,)), Limit("second", 90.0, (1,))]

    rates, held_by = shares([1, 2, 1], limits)

    assert rates == pytest.approx([10.0, 30.0, 30.0])
    assert held_by == ["first", "all", "all"]


@pytest.mark.parametrize(
    ("scenario", "seconds", "limit"),
    [
        pytest.param(Scenario(nodes=100, nic_gbit_s=8), 100.0, "network card of the replica", id="one card"),
        pytest.param(Scenario(nodes=100, nic_gbit_s=8, replicas=4), 25.0, "network card of the replica", id="four"),
        pytest.param(Scenario(nodes=2, node_gbit_s=0.8), 10.0, "network card of the node", id="the node's card"),
        pytest.param(
            Scenario(nodes=100, nic_gbit_s=1000, door="tls", workers=2), 50.0, "cores of the replica", id="two cores"
        ),
        pytest.param(
            Scenario(nodes=1, nic_gbit_s=1000, door="tls", workers=8), 1.0, "one core for a connection", id="one client"
        ),
    ],
)
def test_what_is_warm_takes_as_long_as_its_tightest_limit(scenario: Scenario, seconds: float, limit: str) -> None:
    """Bytes by speed."""
    outcome = simulate(scenario, SIMPLE)

    assert outcome.last_node_s == pytest.approx(seconds, rel=1e-3)
    assert outcome.limit == limit
    assert outcome.upstream_bytes == 0


def test_nobody_is_faster_than_what_arrives_at_the_proxy() -> None:
    """A line of 100 MB/s gives 1 GB in 10 s, and half of it to each of two replicas; every one of them fetches it."""
    one = simulate(Scenario(nodes=10, nic_gbit_s=1000, state=State.COLD), SIMPLE)
    two = simulate(Scenario(nodes=10, nic_gbit_s=1000, state=State.COLD, replicas=2), SIMPLE)

    assert (one.last_node_s, two.last_node_s) == pytest.approx((10.0, 20.0), rel=1e-3)
    assert (one.upstream_bytes, two.upstream_bytes) == pytest.approx((1e9, 2e9), rel=1e-6)
    assert one.limit == two.limit == "line to the registry"


def test_a_slow_card_hides_a_slow_line() -> None:
    """The file grows ahead of clients that have little each; they catch up with nothing."""
    cold = simulate(Scenario(nodes=100, nic_gbit_s=8, state=State.COLD), SIMPLE)

    assert cold.last_node_s == pytest.approx(100.0, rel=1e-3)


def test_the_bucket_spares_the_registry() -> None:
    """One content from it takes as long as one connection to it does."""
    outcome = simulate(Scenario(nodes=10, nic_gbit_s=1000, replicas=4, state=State.BUCKET), SIMPLE)

    assert outcome.last_node_s == pytest.approx(20.0, rel=1e-3)
    assert outcome.upstream_bytes == 0


def test_layers_are_unpacked_one_after_the_other_while_others_come() -> None:
    """Two layers of 1 s each, downloaded together in 2 s, are unpacked at 4 s."""
    inputs = replace(SIMPLE, layers_bytes=(100, 100), unpack_bytes_s=100.0)
    outcome = simulate(Scenario(nodes=1, node_gbit_s=100 * 8 / 1e9), inputs)

    assert (outcome.last_download_s, outcome.last_node_s) == pytest.approx((2.0, 4.0), rel=1e-3)


def test_peers_are_no_help_to_nodes_that_come_at_once() -> None:
    """Nobody has a layer before all have it."""
    alone = Scenario(nodes=100, nic_gbit_s=8)

    assert simulate(replace(alone, has_peers=True), SIMPLE) == simulate(alone, SIMPLE)


def test_peers_that_have_the_image_spare_the_proxy() -> None:
    """Ten of them with 8 Gbit/s give 100 nodes 1 GB in 10 s; the proxy sends nothing."""
    outcome = simulate(Scenario(nodes=100, seeds=10, has_peers=True, node_gbit_s=8), SIMPLE)

    assert outcome.last_node_s == pytest.approx(10.0, rel=1e-3)
    assert outcome.replica_sent_bytes == 0
    assert outcome.limit == "peers"


def test_those_who_begin_later_get_it_from_those_who_began() -> None:
    """A slow rollout costs the proxy the first nodes only."""
    rollout = Scenario(nodes=100, nic_gbit_s=8, node_gbit_s=8, window_s=300.0)
    alone, beside = simulate(rollout, SIMPLE), simulate(replace(rollout, has_peers=True), SIMPLE)

    assert alone.replica_sent_bytes == pytest.approx(100e9, rel=1e-3)
    assert beside.replica_sent_bytes < 10e9
    assert beside.last_node_s < alone.last_node_s


def test_requests_cost_the_cores_their_time_before_the_first_layer() -> None:
    """3,000 first requests of 1 ms by three workers: the last has its answer after a second."""
    inputs = replace(SIMPLE, doors={"mirror": replace(NO_COSTS, new_s=0.001)})
    outcome = simulate(Scenario(nodes=3_000, workers=3), inputs)

    assert outcome.last_answer_s == pytest.approx(1.0)
    assert outcome.replica_cpu_s >= 3.0


def test_memory_is_that_of_workers_and_of_waiting_connections() -> None:
    """One layer is one connection; one worker has no supervisor."""
    outcome = simulate(Scenario(nodes=50, workers=2), SIMPLE)
    single = simulate(Scenario(nodes=50, workers=1), SIMPLE)

    assert (outcome.replica_memory_bytes, single.replica_memory_bytes) == (10 + 200 + 50_000, 100 + 50_000)


def test_every_byte_is_sent_once() -> None:
    """Whatever the order of events, with cohorts and what grows."""
    inputs = read_inputs()
    scenario = Scenario(nodes=400, replicas=2, state=State.COLD, window_s=30.0)
    outcome = simulate(scenario, inputs)

    assert outcome.replica_sent_bytes * 2 == pytest.approx(400 * sum(inputs.layers_bytes), rel=1e-4)
    assert outcome.upstream_bytes == pytest.approx(2 * sum(inputs.layers_bytes), rel=1e-4)
    assert outcome == simulate(scenario, inputs)
