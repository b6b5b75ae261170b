"""The port closes: who got through to it before is not cut, who comes later is refused."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from regproxy.engine.certificates import Certificates
from regproxy.engine.registry_mode import FrontDoor, RegistryInstance
from regproxy.engine.sender import BodySender
from regproxy.engine.warm_connection import Reception
from unit.engine.test_registry_mode import Nothing

WAITING = 8


@pytest.fixture
async def door(certificates: Certificates) -> AsyncIterator[FrontDoor]:
    """Yield a front door in a context with a proxy server."""
    front_door, proxyserver = FrontDoor(), Proxyserver()
    front_door.reception = Reception(Nothing(), certificates.context_for, BodySender(), 60, 60, 60)
    with taddons.context(proxyserver, front_door):
        yield front_door


@pytest.mark.parametrize("seen", [False, True])
async def test_who_waits_to_be_accepted_is_taken_in(door: FrontDoor, *, seen: bool) -> None:
    """The kernel has let them in, and would reset them with the port; each is open afterwards, and quiet."""
    made: ServerInstance[ProxyMode] = ServerInstance.make("registry", Proxyserver())
    assert isinstance(made, RegistryInstance)
    made._servers = [*await made.listen("127.0.0.1", 0)]
    ((host, port, *_),) = made.listen_addrs
    # Unless something is awaited in between, the loop has not seen them; else it is about to take them in.
    clients = [socket.create_connection((host, port)) for _ in range(WAITING)]
    if seen:
        await asyncio.sleep(0)
    await made.stop()

    assert len(door.open) == WAITING
    assert all(connection.quiet is not None for connection in door.open)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port))
    for connection in list(door.open):
        connection.end()
    async with asyncio.timeout(10):
        while door.open:  # noqa: ASYNC110 - they end by themselves
            await asyncio.sleep(0.001)
    assert [client.recv(1) for client in clients] == [b""] * WAITING
    for client in clients:
        client.close()
