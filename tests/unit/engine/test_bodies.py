"""A file body owns its descriptor, and a flow its file body."""

import gc
import os
from pathlib import Path

import pytest
from mitmproxy.test import tflow

from regproxy.engine.bodies import FileBody, attach, attached, detach


@pytest.fixture
def fd(tmp_path: Path) -> int:
    (tmp_path / "blob").write_bytes(b"0123456789")
    return os.open(tmp_path / "blob", os.O_RDONLY)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_a_body_closes_its_file_once(fd: int) -> None:
    """A second close must not close whatever has got the same number since."""
    body = FileBody(fd, 2, 7)
    assert body.length_bytes == 5

    body.close()
    assert not is_open(fd)
    reused = os.dup(0)
    body.close()

    assert is_open(reused)
    os.close(reused)


def test_a_body_that_is_lost_closes_its_file(fd: int) -> None:
    """A client that leaves before its answer must not cost a descriptor."""
    body = FileBody(fd, 0, 10)
    assert is_open(fd)

    del body
    gc.collect()

    assert not is_open(fd)


def test_a_detached_body_is_closed(fd: int) -> None:
    """A flow has its body until it is sent; to detach what is not there does nothing."""
    flow = tflow.tflow()
    body = FileBody(fd, 0, 10)
    assert attached(flow) is None

    attach(flow, body)
    assert attached(flow) is body
    detach(flow)
    detach(flow)

    assert attached(flow) is None
    assert not is_open(fd)


def test_a_flow_that_is_lost_closes_its_file(fd: int) -> None:
    """The registry of bodies keeps neither flow nor body alive."""
    flow = tflow.tflow()
    attach(flow, FileBody(fd, 0, 10))

    del flow
    gc.collect()

    assert not is_open(fd)
