"""The admin API as commands of mitmproxy: `registry.purge quay.io/team/app:1.4` in mitmweb's or mitmproxy's prompt.

A command is the API's operation of the same name. What is wrong with its arguments is said at once; its answer, or why
there is none, comes in the event log, for a command cannot wait. Nobody but who sits at the program reaches them:
mitmdump has no prompt, and mitmweb asks for its password.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import cast
from urllib.parse import urlencode

from mitmproxy import command
from mitmproxy.exceptions import CommandError
from mitmproxy.utils import asyncio_utils

from regproxy.stack.admin.queries import Query, RequestError, Route
from regproxy.stack.core import Core
from regproxy.store.errors import StoreError

logger = logging.getLogger(__name__)


def _command(name: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Mark a command; mitmproxy's own decorator has no types."""
    return cast(Callable[[Callable[..., str]], Callable[..., str]], command.command(name))


class AdminCommands:
    """The addon that mitmproxy finds the commands in."""

    name = "registry-admin-commands"

    def __init__(self, core: Core, routes: Sequence[Route]) -> None:
        self._core = core
        self._routes: Mapping[str, Route] = {route.name: route for route in routes}

    @_command("registry.status")
    def status(self) -> str:
        """Show what the proxy does now."""
        return self._start("status", "status")

    @_command("registry.why")
    def why(self, subject: str) -> str:
        """Show why an answer was as it was: an image, a digest, or the id of a request."""
        return self._start("why", f"why {subject}", subject=subject)

    @_command("registry.purge")
    def purge(self, target: str) -> str:
        """Remove an image, a repository, a registry or a digest from the cache."""
        return self._start("purge", f"purge {target}", target=target)

    @_command("registry.pin")
    def pin(self, target: str) -> str:
        """Never evict a target."""
        return self._start("pin", f"pin {target}", target=target)

    @_command("registry.unpin")
    def unpin(self, target: str) -> str:
        """Evict a target again when its time comes."""
        return self._start("unpin", f"unpin {target}", target=target)

    @_command("registry.warm")
    def warm(self, image: str) -> str:
        """Pull an image into the cache before it is needed."""
        return self._start("warm", f"warm {image}", target=image)

    @_command("registry.verify")
    def verify(self) -> str:
        """Hash all that is stored anew; what is wrong is removed."""
        return self._start("verify", "verify")

    def _start(self, operation: str, words: str, **query: str) -> str:
        """Begin, and return what is to be shown meanwhile. Raises CommandError."""
        if not self._core.ready:
            raise CommandError("the proxy is starting")
        route = self._routes[operation]
        try:
            asked = route.read(urlencode(query))
        except RequestError as error:
            raise CommandError(str(error)) from None
        asyncio_utils.create_task(_answer(route, asked, words), name=f"command {operation}", keep_ref=True)
        return f"{words}: the answer comes in the event log"


async def _answer(route: Route, asked: Query, words: str) -> None:
    try:
        answered = await route.handler(asked)
    except (RequestError, StoreError) as error:
        logger.error("%s: %s", words, error)  # noqa: TRY400 - the message is complete
    else:
        logger.info("%s: %s", words, json.dumps(answered))
