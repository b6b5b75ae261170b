"""The pool of connections to upstreams."""

from typing import override

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace


class QuietConnector(aiohttp.TCPConnector):
    """Uses a connection again only if nothing has come on it since its last answer.

    aiohttp 3.14 takes what an idle connection has received for the answer to the next request: an answer that nobody
    asked for, or the body that a faulty server sends to a HEAD, would be given to somebody else.
    """

    @override
    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        idle = self._conns.get(key)
        if idle is not None:
            for entry in [entry for entry in idle if entry[0].should_close]:
                idle.remove(entry)
                entry[0].close()
        return await super()._get(key, traces)
