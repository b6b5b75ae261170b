"""Workers of a run, and runs on one machine, do not get one another's addresses and ports."""

import random
import socket

import pytest

from lab import addresses
from lab.addresses import BACKEND_PORT, AddressBlock, free_port


def third_octet(block: AddressBlock) -> int:
    return int(block.address(1).host.split(".")[2])


def test_ports_that_are_held_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process gets another share, also if it happens to try ours first."""
    first, held = addresses._claimed_share()
    monkeypatch.setattr(random, "sample", lambda firsts, _: [first, *firsts])
    with held:
        another, held_by_another = addresses._claimed_share()
        held_by_another.close()

    assert another != first


def test_a_block_that_is_held_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was released may be."""
    block = AddressBlock.claim()
    monkeypatch.setattr(random, "sample", lambda *_: [third_octet(block)])

    with pytest.raises(OSError, match="taken by another run"):
        AddressBlock.claim()
    block.release()


@pytest.mark.parametrize(("number", "port"), [(1, BACKEND_PORT), (40, 8081)])
def test_a_block_with_what_a_killed_run_left_is_not_given(
    number: int, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its servers go on after a KILL of the tests, and nobody holds the block any more."""
    block = AddressBlock.claim()
    monkeypatch.setattr(random, "sample", lambda *_: [third_octet(block)])

    with socket.create_server(block.address(number, port)):
        block.release()
        with pytest.raises(OSError, match="taken by another run"):
            AddressBlock.claim()


def test_a_port_is_not_given_again_soon() -> None:
    """What was started on one may start again on it; outgoing connections do not get it either."""
    ports = [free_port() for _ in range(20)]

    assert len(set(ports)) == 20
    assert max(ports) < 30_000


def test_a_port_in_use_is_not_given() -> None:
    """Whoever listens there, if it is within our share."""
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] not in {free_port() for _ in range(200)}
