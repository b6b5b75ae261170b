"""The downloads of all workers, as operators see them: each once, as far as the one that knows most has it."""

from typing import Any

from regproxy.oci.digest import Digest
from regproxy.stack.admin.queries import Json
from regproxy.stack.core import Core

_TOPIC = "ingests"


class Ingests:
    """Asked at the desk; for the event loop."""

    def __init__(self, core: Core) -> None:
        self._core = core
        core.desk.on_question(_TOPIC, self._answer)

    async def described(self) -> list[Json]:
        """Describe all of them."""
        found: dict[str, dict[str, Any]] = {}
        for told in [self._own(), *await self._core.desk.others(_TOPIC)]:
            for each in told:
                known = found.get(each["digest"])
                if known is None or known["arrived_bytes"] < each["arrived_bytes"]:
                    found[each["digest"]] = each
        return [*found.values()]

    async def _answer(self, _: object) -> list[dict[str, Any]]:
        return self._own()

    def _own(self) -> list[dict[str, Any]]:
        return [
            {
                "digest": str(ingest.digest),
                "state": ingest.state.value,
                "arrived_bytes": ingest.arrived_bytes,
                "size_bytes": ingest.size_bytes,
            }
            for ingest in self._core.store.running_ingests()
        ]


async def is_downloading(core: Core, digest: Digest) -> bool:
    """Whether some worker downloads a content."""
    if core.store.running(digest) is not None:
        return True
    told = await core.desk.others(_TOPIC)
    return any(each["digest"] == str(digest) for ingests in told for each in ingests)
