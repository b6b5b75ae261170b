"""What is so for the whole proxy and not for one worker: drills, who has which CA, that a disk or a bucket fails.

Told as it changes and kept for workers to come, as `crew_knowledge` does with what is learnt of registries.
"""

from typing import Any

from regproxy.engine.crew import Crew
from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.drills import LONGEST_DRILL_S, Drill
from regproxy.policy.image_rules import parse_network
from regproxy.shared.link import Link
from regproxy.stack.ca import LOOK_S
from regproxy.stack.core import Core

_FORGOTTEN_S = 60.0


class CrewStates:
    """Both ends of it, for one worker."""

    def __init__(self, core: Core, crew: Crew) -> None:
        self._core, self._crew = core, crew

    def connect(self) -> None:
        """Begin to tell and to hear; once the core is started."""
        crew, core = self._crew, self._core
        core.drills.on_change = self._tell_drill
        crew.on_fact("drill", self._hear_drill)
        core.on_store_state = lambda fails: crew.tell("store", "fails", fails)
        crew.on_fact("store", lambda _, fails: core.hear_store_state(fails=fails))
        clients = core.ca.clients
        # Kept until the worker that writes the file has written it.
        clients.on_change = lambda address, row: crew.tell("ca client", address, row, 2 * LOOK_S)
        crew.on_fact("ca client", core.ca.clients.hear)
        if core.shared is not None:
            self._connect_shared()

    def _connect_shared(self) -> None:
        crew, shared = self._crew, self._core.shared
        assert shared is not None
        tags, content = shared.tags, shared.content
        tags.on_forgotten = lambda registry, name, tag, at_s: crew.tell(
            "forgotten tag", f"{registry} {name} {tag}", at_s, _FORGOTTEN_S
        )
        crew.on_fact("forgotten tag", lambda key, at_s: tags.hear_forgotten((*key.split(" "),), at_s))
        links: dict[str, Link] = {"reading": shared.reading, "writing": shared.writing}
        for name, link in links.items():
            link.on_failed = lambda reason, name=name: crew.tell("bucket", name, reason)  # type: ignore[misc]
        crew.on_fact("bucket", lambda name, reason: links[name].hear_failed(reason))
        crew.on_gone(shared.uploads.take_up_later)

        async def let_go(digest: str) -> bool:
            await shared.let_go(Digest.parse(digest))
            return True

        shared.let_go_elsewhere = lambda digest: crew.ask("purged from the bucket", str(digest))
        crew.on_question("purged from the bucket", let_go)
        content.on_written = lambda digest: crew.tell("written to the bucket", str(digest), True)
        crew.on_fact("written to the bucket", lambda digest, _: content.distrusted.discard(Digest.parse(digest)))

    def _tell_drill(self, drill: Drill) -> None:
        told = [sorted(map(str, drill.hosts)), [*map(str, drill.clients)], drill.until_s, drill.began_s]
        self._crew.tell("drill", str(drill.registry), told, LONGEST_DRILL_S)

    def _hear_drill(self, registry: str, told: list[Any]) -> None:
        hosts, clients, until_s, began_s = told
        drill = Drill(
            Registry.parse(registry),
            frozenset(map(Registry.parse, hosts)),
            tuple(map(parse_network, clients)),
            until_s,
            began_s,
        )
        self._core.drills.hear(drill)
