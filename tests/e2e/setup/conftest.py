"""Fixtures of the tests of `/setup/`: one proxy, and a root to throw away for each test."""

from collections.abc import Iterator

import pytest

from lab.client_setup import ClientSetup
from lab.lab import Lab
from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot, why_no_root


@pytest.fixture(scope="package")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for all of them: a set-up changes nothing of it."""
    assert lab.hub.address
    with lab.proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture
def root() -> Iterator[ThrowawayRoot]:
    """Yield a root of its own, or skip the test where there can be none."""
    reason = why_no_root()
    if reason is not None:
        pytest.skip(reason)
    with ThrowawayRoot() as throwaway:
        yield throwaway


@pytest.fixture
def setup(proxy: Proxy, root: ThrowawayRoot) -> ClientSetup:
    """Return what runs the proxy's scripts in the root."""
    return ClientSetup(proxy, root)


@pytest.fixture
def mirror(proxy: Proxy) -> str:
    """Return the address of the mirror door."""
    assert proxy.request("GET", "/v2/").status == 200
    return f"http://{proxy.address}"
