"""The commands of mitmproxy's prompt: arguments are checked at once, answers come in the log."""

import asyncio
import logging

import pytest
from mitmproxy.exceptions import CommandError
from mitmproxy.test import taddons

from regproxy.oci.digest import Digest
from regproxy.stack.admin.commands import AdminCommands
from regproxy.stack.admin_door import AdminDoor
from regproxy.stack.core import Core
from regproxy.stack.recent_requests import RecentRequests
from unit.stack.conftest import Configure

CONTENT = b"something"
LOGGER = "regproxy.stack.admin.commands"


async def answered(caplog: pytest.LogCaptureFixture, beginning: str) -> logging.LogRecord:
    """Return the line of the log that begins so."""
    async with asyncio.timeout(30):
        while True:
            for record in caplog.records:
                if record.name == LOGGER and record.getMessage().startswith(beginning):
                    return record
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["status", "why", "purge", "pin", "unpin", "warm", "verify"])
def test_every_command_is_an_operation_of_the_api(name: str) -> None:
    """With the parameters that the operation has to have, by their types."""
    admin = AdminDoor(Core(), RecentRequests())
    with taddons.context(AdminCommands(Core(), admin.routes)) as context:
        command = context.master.commands.commands[f"registry.{name}"]
        (route,) = [route for route in admin.routes if route.name == name]
        required = [parameter for parameter in route.parameters if parameter.required]

        assert len(command.parameters) == (1 if name == "purge" else len(required))
        assert command.help
        with pytest.raises(CommandError, match="starting"):
            context.master.commands.execute(f"registry.{name}" + " quay.io" * len(command.parameters))


async def test_commands_do_what_the_api_does(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """A purge removes, `why` explains, pins come and go; what is wrong is an error."""
    core = configure()
    admin = AdminDoor(core, RecentRequests())
    digest = Digest.of(CONTENT)
    await core.store.put_content(digest, CONTENT, "")
    caplog.set_level(logging.INFO, LOGGER)
    with taddons.context(AdminCommands(core, admin.routes)) as context:
        execute = context.master.commands.execute
        assert "event log" in execute(f"registry.why {digest}")
        assert f'"{digest}"' in (await answered(caplog, "why")).getMessage()
        execute(f"registry.pin {digest}")
        assert '"stored": 1' in (await answered(caplog, "pin")).getMessage()
        execute(f"registry.unpin {digest}")
        await answered(caplog, "unpin")
        execute("registry.verify")
        await answered(caplog, "verify")
        execute(f"registry.purge {digest}")
        assert '"freed_bytes": 4096' in (await answered(caplog, "purge")).getMessage()
        assert not core.store.holds(digest)
        execute("registry.warm unknown.example/a:1")
        refused = await answered(caplog, "warm")
        assert (refused.levelname, "none of REGISTRIES" in refused.getMessage()) == ("ERROR", True)
        with pytest.raises(CommandError, match="UPPER"):
            execute("registry.purge UPPER/case:x")
        with pytest.raises(CommandError):
            execute("registry.purge")
