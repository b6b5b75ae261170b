"""Several workers, one proxy: how `startup` comes to have others, and what it leaves to them."""

import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

from mitmproxy import ctx
from mitmproxy.utils import asyncio_utils

from regproxy.engine.connection_count import ConnectionCount, ConnectionLimits, limits_of_this_process
from regproxy.engine.connection_tables import ConnectionTables, CrewConnectionCount
from regproxy.engine.crew import Crew
from regproxy.engine.registry_mode import FrontDoor
from regproxy.engine.workers import become_supervisor, own_place, usable_cores
from regproxy.settings import Settings
from regproxy.stack.core import Core
from regproxy.stack.crew_knowledge import CrewKnowledge
from regproxy.stack.crew_states import CrewStates
from regproxy.stack.ingest_errors import IngestErrors
from regproxy.stack.turns import Turns
from regproxy.store.content import Store
from regproxy.store.crew.sharing import LockFile, Sharing
from regproxy.store.crew.stamps import Stamps
from regproxy.store.crew.store import CrewStore

logger = logging.getLogger(__name__)


class Counting(Protocol):
    """What counts, and has a task of its own; with others it counts together with them."""

    def share(self, crew: Crew) -> None:
        """Begin to tell the others, and to hear."""

    async def run(self) -> None:
        """Do what is to be done from time to time, until cancelled."""


class Workers:
    """This process among its like; alone it is all there is."""

    def __init__(self) -> None:
        self._place = own_place()
        self.crew: Crew | None = None
        self.sharing: Sharing | None = None
        if self._place is not None:
            self.crew = crew = Crew(self._place)
            self.sharing = Sharing(crew.claim, Stamps.of_memory(self._place.board_fd), IngestErrors())

    def begin(self, settings: Settings) -> None:
        """Become the supervisor of several workers if that is wanted. Raises OSError."""
        wanted = settings.workers or usable_cores()
        if self.crew is not None or wanted == 1:
            return
        if ctx.master.addons.get("webauth") is not None or ctx.master.addons.get("view") is not None:
            logger.warning("WORKERS: there is one process, for a user interface must see every request")
            return
        become_supervisor(wanted, settings.listen_host, settings.listen_port, settings.drain_timeout_s)

    def open(self, core: Core, front_door: FrontDoor) -> None:
        """Meet the others, and take the port that all of them share."""
        if self.crew is None or self._place is None:
            return
        core.desk.share(self.crew)
        front_door.listening = tuple(socket.socket(fileno=each) for each in self._place.listening_fds)
        self.crew.open()

    def store(self, settings: Settings) -> Store:
        """Return the store, not opened."""
        directory, cap_bytes = settings.cache_directory, settings.cache_max_size_bytes
        inactive_s, min_free_bytes = settings.cache_inactive_s, settings.cache_min_free_bytes
        if self.sharing is None:
            return Store(directory, cap_bytes, inactive_s, min_free_bytes)
        return CrewStore(directory, cap_bytes, inactive_s, min_free_bytes, sharing=self.sharing)

    def lock(self, settings: Settings) -> LockFile | None:
        """Return what is held while the CA is read or made; None without others. Raises StoreError."""
        if self.crew is None:
            return None
        settings.cache_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LockFile(settings.cache_directory / "ca.lock")

    def connection_count(self, limits: ConnectionLimits) -> ConnectionCount:
        """Return who counts connections: all workers together."""
        own = limits_of_this_process(limits)
        if self._place is None:
            return ConnectionCount(own)
        own = ConnectionLimits(own.total, 0)
        return CrewConnectionCount(own, limits, ConnectionTables.of_memory(self._place.board_fd), self._place.number)

    def connect(self, core: Core, counters: Sequence[Counting]) -> None:
        """Share what is learnt, once the core is started."""
        if self.crew is None or self.sharing is None:
            return
        core.turns = Turns(self.sharing.claim)
        CrewKnowledge(core, self.crew, self.sharing.stamps).connect()
        CrewStates(core, self.crew).connect()
        store = core.store
        assert isinstance(store, CrewStore)
        self.crew.on_gone(store.worker_gone)
        for counter in counters:
            counter.share(self.crew)
        asyncio_utils.create_task(core.desk.wait_for_it(), name="wait for the desk", keep_ref=True)

    async def once(self, what: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do what one worker is to do: at once, or when the one that does it has died."""
        if self.sharing is not None:
            claim = self.sharing.claim(what)
            while not claim.is_granted:
                await claim.next_word()
        await work()

    def serves(self) -> None:
        """Say that this worker answers."""
        if self.crew is not None:
            self.crew.ready()
