"""The proxy mode of our own: its port, and connections that go on with mitmproxy."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from regproxy.engine.certificates import Certificates
from regproxy.engine.registry_mode import FrontDoor, RegistryInstance, RegistryMode
from regproxy.engine.sender import BodySender
from regproxy.engine.warm import Asked, WarmAnswer
from regproxy.engine.warm_connection import Reception


class Nothing:
    """`WarmReads` that intercept nothing."""

    def intercepts(self, _host: str, _port: int, _client_ip: str) -> bool:
        """See `WarmReads`."""
        return False

    def answer(self, _asked: Asked) -> WarmAnswer | None:
        """See `WarmReads`."""
        raise AssertionError

    def sent(self, *_: object) -> None:
        """See `WarmReads`."""
        raise AssertionError


@pytest.fixture
async def instance(certificates: Certificates) -> AsyncIterator[RegistryInstance]:
    """Yield a server of the mode, not started."""
    door, proxyserver = FrontDoor(), Proxyserver()
    door.reception = Reception(Nothing(), certificates.context_for, BodySender(), 60, 60, 60)
    with taddons.context(proxyserver, door):
        made: ServerInstance[ProxyMode] = ServerInstance.make("registry", proxyserver)
        assert isinstance(made, RegistryInstance)
        yield made
        if made.is_running:
            await made.stop()


def test_the_mode_is_known_to_mitmproxy() -> None:
    """By its name, without parameters."""
    assert isinstance(ProxyMode.parse("registry"), RegistryMode)
    with pytest.raises(ValueError, match="has no parameter"):
        ProxyMode.parse("registry:x")


async def test_port_0_is_one_free_port_for_both_families(instance: RegistryInstance) -> None:
    """As mitmproxy's own modes have it: a client that tries IPv6 first finds the same server."""
    instance._servers = [*await instance.listen("", 0)]

    ports = {address[1] for address in instance.listen_addrs}
    families = {each.family for server in instance._servers for each in server.sockets}  # type: ignore[union-attr]
    assert len(ports) == 1
    assert socket.AF_INET in families
    assert families == ({socket.AF_INET, socket.AF_INET6} if has_ipv6() else {socket.AF_INET})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_one_address_is_one_socket(instance: RegistryInstance, host: str) -> None:
    """`LISTEN_HOST` names it; a connection to it is answered by mitmproxy when it is no CONNECT of ours."""
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    instance._servers = [*await instance.listen(host, 0)]
    ((address, port, *_),) = instance.listen_addrs
    assert address == host

    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"\0")
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_a_port_in_use_is_an_error(instance: RegistryInstance) -> None:
    """Not another port instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await instance.listen("127.0.0.1", taken.getsockname()[1])


async def test_no_worker_takes_at_once_all_who_wait(
    instance: RegistryInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection in a turn of its loop: in the meantime those that have nothing to do have woken up."""
    turn, begun = 0, list[int]()

    def begin() -> asyncio.Protocol:
        begun.append(turn)
        return asyncio.Protocol()

    monkeypatch.setattr(instance, "_begin", begin)
    with socket.create_server(("127.0.0.1", 0)) as shared, ExitStack() as cleanup:
        for _ in range(8):
            cleanup.enter_context(socket.create_connection(shared.getsockname()))
        instance._front_door.listening = (shared,)
        (server,) = await instance.listen("", 0)
        while len(begun) < 8:
            await asyncio.sleep(0)
            turn += 1
        server.close()
    assert len(set(begun)) == 8


def has_ipv6() -> bool:
    """Whether this machine has IPv6's loopback."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True
