"""One CA for all tests of the engine, and mitmproxy's options as the proxy server defines them."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mitmproxy import options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from regproxy.engine.authority import Authority, load_or_create
from regproxy.engine.certificates import Certificates
from unit.engine.warm_stage import Stage, running_stage


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory: Path = tmp_path_factory.mktemp("ca")
    return load_or_create(directory / "ca.crt", directory / "ca.key", None, dt.datetime.now(dt.UTC))


@pytest.fixture
def certificates(authority: Authority) -> Certificates:
    addon = Certificates()
    addon.authority = authority
    return addon


@pytest.fixture
async def opts() -> AsyncIterator[options.Options]:
    """Yield options that have what the layers read."""
    with taddons.context(Proxyserver()) as running:
        yield running.options


@pytest.fixture(params=["eager", "lazy"])
async def stage(
    request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates, authority: Authority
) -> AsyncIterator[Stage]:
    """Yield a server of warm connections, with mitmproxy's eager tasks and with plain ones."""
    if request.param == "eager":
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with running_stage(tmp_path, certificates, authority) as running:
        yield running
