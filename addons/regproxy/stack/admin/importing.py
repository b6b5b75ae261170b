"""Import: content that an operator brings by hand, where no registry is reached. Blobs first, manifests, then tags.

Nothing is content before it hashed to its digest: a blob comes in pieces through an ingest, as a download does, and a
manifest is in memory. Content is nobody's until a manifest of a repository names it. Then it counts as if the
operator's login had opened it there a long time ago (`policy.access.LONG_AGO_S`): while the registry does not answer it
is for everybody whom the proxy serves; a registry that answers is asked first, as for all that was not asked lately.
"""

import asyncio
import time

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.media_types import is_manifest_media_type
from regproxy.oci.references import References, declared_media_type, references
from regproxy.oci.wording import shown
from regproxy.policy.access import LONG_AGO_S, NEVER_S, Given, Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.policy.targets import Target
from regproxy.stack.admin.queries import COUNT, FLAG, TEXT, Json, RequestError, Schema, record
from regproxy.stack.admin.registries import registry_of
from regproxy.stack.admin.warming import ACCEPTED
from regproxy.stack.core import Core
from regproxy.store.errors import DigestMismatch, IngestFailed
from regproxy.store.ingest import Ingest
from regproxy.store.records import TagKey, TagRecord
from regproxy.store.sources import Source

IDLE_LIMIT_S = 60.0
"""How long an upload waits for its next piece. What has come is kept, and the next attempt goes on from there."""

MOST_UPLOADS = 16

UPLOADED: Schema = record(digest=TEXT, received_bytes=COUNT, stored=FLAG)
"""`received_bytes`: where the next piece begins."""

IMPORTED: Schema = record(image=TEXT, digest=TEXT)


class _Upload:
    """One blob on its way: requests bring pieces, the ingest's task writes them."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.turn = asyncio.Lock()
        """One request at a time."""
        self._pieces: asyncio.Queue[tuple[bytes, asyncio.Future[None]]] = asyncio.Queue(1)

    async def fill(self, ingest: Ingest) -> None:
        """Take in what comes."""
        await ingest.begin(self.size_bytes, None)
        while ingest.contiguous_bytes < self.size_bytes:
            try:
                async with asyncio.timeout(IDLE_LIMIT_S):
                    piece, written = await self._pieces.get()
            except TimeoutError:
                raise IngestFailed(f"{ingest.digest}: nothing came for {IDLE_LIMIT_S:g} s") from None
            await ingest.write([piece])
            if ingest.contiguous_bytes < self.size_bytes:
                written.set_result(None)
        await ingest.finish()

    async def take(self, ingest: Ingest, piece: bytes) -> None:
        """Write a piece; of the last one the content is verified and stored, too. Raises the ingest's error."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._pieces.put((piece, written))
        ended = asyncio.ensure_future(ingest.verified())
        try:
            await asyncio.wait([written, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
        finally:
            ended.cancel()


class Imports:
    """Takes in content, manifests and tags."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._uploads: dict[Digest, _Upload] = {}

    async def put_content(self, digest: Digest, size_bytes: int, offset: int, piece: bytes) -> Json:
        """Take a piece of a blob; without one, say how much is there. Raises RequestError, StoreError."""
        store = self._core.store
        if store.holds(digest):
            return _uploaded(digest, size_bytes, stored=True)
        upload, ingest = self._join_or_begin(digest, size_bytes)
        try:
            async with upload.turn:
                await ingest.begun()
                there_bytes = ingest.contiguous_bytes
                if piece:
                    _check_place(upload, there_bytes, offset, len(piece))
                    await upload.take(ingest, piece)
                elif not size_bytes:
                    await ingest.verified()
            if ingest.contiguous_bytes == upload.size_bytes:
                await store.landed(ingest)
        except DigestMismatch as error:
            await store.landed(ingest)
            raise RequestError(400, str(error)) from None
        return _uploaded(digest, ingest.contiguous_bytes, stored=store.holds(digest))

    async def put_manifest(self, target: Target, media_type: str, body: bytes) -> Json:
        """Store a manifest whose blobs are there, and note that its repository has all of it. Raises RequestError."""
        digest, name = target.reference, target.name
        registry, _ = registry_of(self._core.settings, target)
        if name is None or not isinstance(digest, Digest):
            raise RequestError(400, f"{target} is no manifest: name it as registry/name@digest")
        if not is_manifest_media_type(media_type):
            raise RequestError(400, f"media_type={shown(media_type)} is no manifest's")
        said = declared_media_type(body) or media_type
        if said != media_type:
            raise RequestError(400, f"media_type={media_type}, but the manifest says {shown(said)}")
        named = references(body)
        self._require(named)
        try:
            await self._core.store.put_content(digest, body, media_type)
        except ValueError as error:
            raise RequestError(400, str(error)) from None
        await self._open(Repository(registry, name), [digest, *named.blobs, *named.manifests])
        now_s = time.time()
        await self._core.store.inventory.note_source(Source(str(registry), name, digest, now_s, "import", "operator"))
        self._core.not_found.written(registry, name)
        return {"image": str(target), "digest": str(digest)}

    async def put_tag(self, target: Target, digest: Digest, checked_at_s: int) -> Json:
        """Let a tag mean an imported manifest, until its registry says otherwise. Raises RequestError."""
        store, name, tag = self._core.store, target.name, target.reference
        registry, _ = registry_of(self._core.settings, target)
        if name is None or tag is None or isinstance(tag, Digest):
            raise RequestError(400, f"{target} is no tag: name it as registry/name:tag")
        manifest = await store.manifest(digest)
        known = await store.access.known(Repository(registry, name), NOBODY, digest)
        if manifest is None or not known.given:
            raise RequestError(400, f"{digest} is no manifest of {registry}/{name} that is stored: upload it first")
        # What clients were told before: the operator's word is newer.
        await store.forget_tag(str(registry), name, tag)
        descriptor = Descriptor(manifest.media_type, digest, len(manifest.body))
        at_s = min(float(checked_at_s), time.time())
        await store.put_tag_record(TagKey(str(registry), name, tag, ACCEPTED), TagRecord(descriptor, at_s))
        self._core.not_found.written(registry, name)
        return {"image": str(target), "digest": str(digest)}

    def _join_or_begin(self, digest: Digest, size_bytes: int) -> tuple[_Upload, Ingest]:
        store = self._core.store
        upload, running = self._uploads.get(digest), store.running(digest)
        if upload is None and running is not None:
            raise RequestError(409, f"{digest} is being downloaded now: ask again when that has ended")
        if upload is not None and running is not None:
            if upload.size_bytes != size_bytes:
                raise RequestError(409, f"{digest} is being uploaded with {upload.size_bytes} bytes, not {size_bytes}")
            return upload, running
        if len(self._uploads) >= MOST_UPLOADS:
            raise RequestError(409, f"{MOST_UPLOADS} uploads are under way: ask again when one has ended")
        begun = self._uploads[digest] = _Upload(size_bytes)

        async def fill(ingest: Ingest) -> None:
            try:
                await begun.fill(ingest)
            finally:
                if self._uploads.get(digest) is begun:
                    del self._uploads[digest]

        return begun, store.join_or_start(digest, fill)

    def _require(self, named: References) -> None:
        """Raise RequestError for a manifest of which something is missing; of an index one platform has to be there."""
        lacking = [digest for digest in named.blobs if not self._core.store.holds(digest)]
        if lacking:
            raise RequestError(400, f"upload what it names first: {', '.join(map(str, lacking))}")
        if named.manifests and not any(map(self._core.store.holds, named.manifests)):
            raise RequestError(400, "upload one of the manifests that it names first")

    async def _open(self, repository: Repository, digests: list[Digest]) -> None:
        """Note that a repository has these, by the operator's word."""
        access = self._core.store.access
        if await access.challenge(repository.registry) is None:
            # A registry that has never answered: its pulls begin with `/v2/`, and no login is wanted for what is here.
            access.challenged(repository.registry, "")
        for digest in filter(self._core.store.holds, digests):
            known = await access.known(repository, NOBODY, digest)
            access.bind(repository, digest, Given.TO_OPERATOR)
            if known.openness.shared_at_s == NEVER_S:
                access.answered(repository, OpenedBy.OPERATOR, NOBODY, let_in=True, now_s=LONG_AGO_S)
        await access.flush()


def _check_place(upload: _Upload, there_bytes: int, offset: int, piece_bytes: int) -> None:
    if offset != there_bytes:
        raise RequestError(409, f"the next piece begins at offset={there_bytes}")
    if there_bytes + piece_bytes > upload.size_bytes:
        raise RequestError(400, f"that is more than the {upload.size_bytes} bytes that were said")


def _uploaded(digest: Digest, received_bytes: int, *, stored: bool) -> Json:
    return {"digest": str(digest), "received_bytes": received_bytes, "stored": stored}
