"""What manifests have of the shared tier: its content, and the turn to ask a registry. Without one, nothing."""

from collections.abc import Awaitable, Callable

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.stack.core import Core
from regproxy.stack.manifest_answers import Pull, Served
from regproxy.store.hot import StoredManifest
from regproxy.store.records import TagKey, TagRecord

type Use = Callable[[Pull, TagRecord], Awaitable[Served | None]]
"""Serves a fresh record, if the client may have it and it is whole."""

type Ask = Callable[[Pull, TagRecord | None], Awaitable[Served]]
"""Asks the registry, with the record that is known."""


class SharedManifests:
    """The bucket's side of `manifests.ManifestSource`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def in_turn(self, pull: Pull, record: TagRecord | None, use: Use, ask: Ask) -> Served:
        """Let one of several replicas ask, and use its answer."""
        shared = self._core.shared
        if shared is None or isinstance(pull.manifest.reference, Digest):
            return await ask(pull, record)
        if pull.lifetime_s <= 0:
            # Every use asks the registry; what others have stored saves the GET, and stands in in an outage.
            return await ask(pull, record or await shared.tags.newer(pull.tag_key, None))
        async with shared.tags.turn(pull.tag_key, record, pull.lifetime_s) as turn:
            served = await use(pull, turn.record) if turn.is_fresh and turn.record is not None else None
            if served is not None:
                _note(pull)
            return served or await ask(pull, turn.record)

    async def content(self, pull: Pull, digest: Digest) -> StoredManifest | None:
        """Bring a manifest into the store. Raises StoreError."""
        shared = self._core.shared
        stored = None if shared is None else await shared.content.manifest(pull.reader.repository, digest)
        if stored is not None:
            _note(pull)
        return stored

    async def records_of_tag(self, pull: Pull) -> list[TagRecord]:
        """Return what replicas know of a tag, whatever their clients accept; none for a digest."""
        shared, key = self._core.shared, pull.tag_key
        if shared is None or isinstance(pull.manifest.reference, Digest):
            return []
        return await shared.tags.all_of(key.registry, key.name, key.tag)

    def stored(self, descriptor: Descriptor) -> None:
        """Have a manifest that was stored written to the bucket."""
        if self._core.shared is not None:
            self._core.shared.uploads.add(descriptor.digest, descriptor.media_type)

    def remember(self, key: TagKey, record: TagRecord) -> None:
        """Tell the others what a tag means."""
        if self._core.shared is not None:
            self._core.shared.tags.remember(key, record)

    async def forget(self, registry: str, name: str, tag: str) -> None:
        """Tell the others to forget a tag."""
        if self._core.shared is not None:
            await self._core.shared.tags.forget(registry, name, tag)


def _note(pull: Pull) -> None:
    """Let the log say where the answer came from."""
    if pull.get_request.trace is not None:
        pull.get_request.trace.from_bucket = True
