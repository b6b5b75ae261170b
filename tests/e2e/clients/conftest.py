"""Fixtures of the tests with real clients. A client lives as long as its test, its storage is empty at the start."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.clients.cell import MACHINE, why_not
from lab.clients.client import Client, Door, Login, Way
from lab.clients.fixtures import StartClient, StartShared
from lab.clients.kinds import KINDS
from lab.clients.newer import newer_root
from lab.debian_base import UnavailableError
from lab.lab import Lab
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME

CACHE = Path(__file__).parents[3] / "var" / "container"


@contextmanager
def starting(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartClient]:
    """Yield what starts clients, which are closed at the end; skip where there can be none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as cleanup:

        def start_one(kind: str, proxy: Proxy, *, door: Door = Door.PROXY, root: Path = MACHINE) -> Client:
            way = Way(proxy.address, (proxy.ca_file, lab.pki.ca_file), door)
            # a short path: daemons have sockets in it
            client = KINDS[kind](tmp_path_factory.mktemp("c") / kind, way, root)
            cleanup.callback(client.close)
            return client

        yield start_one


@pytest.fixture
def start_client(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartClient]:
    """Yield what starts clients for this test."""
    with starting(lab, tmp_path_factory) as start_one:
        yield start_one


@pytest.fixture(scope="module")
def start_early(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartClient]:
    """Yield what starts clients before the tests of the module, for what has to be pulled by then."""
    with starting(lab, tmp_path_factory) as start_one:
        yield start_one


@pytest.fixture(scope="session")
def newer() -> Path:
    """Return the root with the clients of Debian's next release, or skip."""
    try:
        return newer_root(CACHE)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def start_shared(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartShared]:
    """Yield what starts proxies that live as long as the module."""
    proxies: list[Proxy] = []

    def start_one(settings: Mapping[str, str] | None = None) -> Proxy:
        proxies.append(lab.proxy(tmp_path_factory.mktemp("proxy"), settings))
        return proxies[-1].start()

    yield start_one
    for proxy in proxies:
        proxy.close()


@pytest.fixture(scope="module")
def open_proxy(start_shared: StartShared) -> Proxy:
    """Start a proxy without credentials, for all tests of the module."""
    return start_shared()


@pytest.fixture
def right() -> Login:
    """Return a login that the lab's registries and token server take."""
    return Login(USERNAME, PASSWORD)


@pytest.fixture
def wrong() -> Login:
    """Return one that they refuse."""
    return Login(USERNAME, "not-the-password")
