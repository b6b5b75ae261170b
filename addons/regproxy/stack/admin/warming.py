"""Warm: pull images before anybody needs them, by the way that pulls take, so that what is stored is the same.

The registry is asked with the operator's login, or anonymously. What is stored already is not asked for again, so an
interrupted run goes on where it was.
"""

import asyncio
import math
import platform
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

from mitmproxy.utils import asyncio_utils

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Blob, Manifest, build_path
from regproxy.oci.media_types import MANIFEST_MEDIA_TYPES
from regproxy.oci.names import Registry
from regproxy.oci.references import is_wanted, platforms, references
from regproxy.origin.blobs import Connections, fill
from regproxy.origin.errors import UpstreamRefused, UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest
from regproxy.policy.access import Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url
from regproxy.policy.targets import Target
from regproxy.stack.access import Allowed, FromRegistry, Refused
from regproxy.stack.access_questions import Reader, Wish
from regproxy.stack.admin.queries import COUNT, TEXT, Json, RequestError, Schema, array, record
from regproxy.stack.admin.registries import registry_of
from regproxy.stack.core import Core
from regproxy.stack.manifest_answers import Pull, Unobtainable, Wanted, Withheld
from regproxy.stack.manifests import ManifestSource
from regproxy.store.errors import StoreError
from regproxy.store.ingest import Ingest

AT_ONCE = 3
"""Blobs of all images together; each may have several connections of its own."""

KEPT = 200

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
ACCEPTED = tuple(sorted(MANIFEST_MEDIA_TYPES))

WARMING: Schema = record(
    image=TEXT,
    state={"type": "string", "enum": ["running", "done", "failed"]},
    contents=COUNT,
    stored=COUNT,
    fetched_bytes=COUNT,
    platforms=array(TEXT),
    error=TEXT,
)
"""`contents`: how much belongs to it, as far as that is known yet."""

WARMINGS: Schema = record(images=array(WARMING))


@dataclass(slots=True)
class _Job:
    target: Target
    platforms: frozenset[str]
    state: str = "running"
    contents: int = 0
    stored: int = 0
    fetched_bytes: int = 0
    error: str = ""
    known: set[Digest] = field(default_factory=set)


class Warmings:
    """The images that were asked for since the start."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._source = ManifestSource(core)
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def start(self, target: Target, wanted: str) -> Json:
        """Begin; asking again for one that runs changes nothing. Raises RequestError."""
        if not target.is_image:
            raise RequestError(400, f"{target} is no image: name one tag or digest of a repository")
        registry_of(self._core.settings, target)
        running = self._jobs.get(str(target))
        if running is None or running.state != "running":
            chosen = wanted or f"linux/{_MACHINES.get(platform.machine(), platform.machine())}"
            job = self._jobs[str(target)] = _Job(target, frozenset(chosen.split(",")))
            while len(self._jobs) > KEPT:
                self._jobs.popitem(last=False)
            asyncio_utils.create_task(self._run(job), name=f"warm {target}", keep_ref=True)
        self._jobs.move_to_end(str(target))
        return self.described()

    def described(self) -> Json:
        """Describe all of them, the last one first."""
        return {
            "images": [
                {
                    "image": str(job.target),
                    "state": job.state,
                    "contents": job.contents,
                    "stored": job.stored,
                    "fetched_bytes": job.fetched_bytes,
                    "platforms": [*sorted(job.platforms)],
                    "error": job.error,
                }
                for job in reversed(self._jobs.values())
            ]
        }

    async def _run(self, job: _Job) -> None:
        assert job.target.reference is not None
        try:
            await self._warm(job, Manifest(job.target.name or "", job.target.reference))
        except (Unobtainable, Withheld, UpstreamRefused, UpstreamUnavailable, StoreError) as error:
            job.state, job.error = "failed", str(error)
        else:
            job.state = "done"

    async def _warm(self, job: _Job, manifest: Manifest) -> None:
        """Fetch a manifest and all that it names, of the platforms that are wanted."""
        _count(job)
        served = await self._source.serve(self._pull(job, manifest))
        if served.status != 200:
            raise Unobtainable(f"{job.target.registry} answered {served.status} for {build_path(manifest)}", 502)
        job.stored += 1
        named, found = references(served.body), platforms(served.body)
        wanted = [digest for digest in named.manifests if is_wanted(found.get(digest, ""), job.platforms)]
        if named.manifests and not wanted:
            there = ", ".join(sorted(set(found.values())))
            raise Unobtainable(f"none of {', '.join(sorted(job.platforms))} is in it, but {there}", 404)
        for digest in wanted:
            await self._warm(job, Manifest(manifest.name, digest))
        missing = [digest for digest in named.blobs if digest not in job.known]
        job.known.update(missing)
        ended = await asyncio.gather(
            *(self._warm_blob(job, Blob(manifest.name, digest)) for digest in missing), return_exceptions=True
        )
        for error in ended:
            if error is not None:
                raise error

    async def _warm_blob(self, job: _Job, blob: Blob) -> None:
        _count(job)
        settings, store = self._core.settings, self._core.store
        connections = Connections(settings.download_connections, settings.download_part_bytes)
        request = self._request(job, "GET", blob)

        async def fetch(ingest: Ingest) -> None:
            shared = self._core.shared
            about = None if shared is None else await shared.content.about(blob.digest)
            if shared is not None and about is not None:
                may_have = await self._may_have(job, blob, about.size_bytes)
                if may_have and await shared.content.fill(ingest, about):
                    return
            arrival = await self._core.access.arrival(_reader(job, blob), blob.digest)
            await arrival.watch(ingest, partial(fill, ingest, request, self._core.upstream, connections))
            if shared is not None:
                shared.uploads.add(blob.digest, "")

        async with self._slots:
            if not await self._has(job, blob):
                ingest = store.join_or_start(blob.digest, fetch)
                await ingest.verified()
                job.fetched_bytes += ingest.size_bytes or 0
        job.stored += 1

    async def _has(self, job: _Job, blob: Blob) -> bool:
        """Whether a blob is stored, and known to be this repository's: else a pull could not have it in an outage."""
        stored = self._core.store.open_content(blob.digest)
        if stored is None:
            return False
        stored.close()
        return await self._may_have(job, blob, stored.size_bytes)

    async def _may_have(self, job: _Job, blob: Blob, size_bytes: int) -> bool:
        """Whether a blob that is at hand may be used; Unobtainable when the registry refuses it."""
        wish = Wish(_reader(job, blob), blob.digest, size_bytes, self._request(job, "HEAD", blob))
        match await self._core.access.admit(wish):
            case Allowed():
                return True
            case FromRegistry():
                return False
            case Refused(answer, reason):
                raise Unobtainable(reason, answer.status)

    def _pull(self, job: _Job, manifest: Manifest) -> Pull:
        is_tag = not isinstance(manifest.reference, Digest)
        registry = Registry.parse(job.target.registry or "")
        lifetime_s = 0.0 if is_tag else math.inf
        wanted = Wanted(registry, manifest, ACCEPTED, False, lifetime_s, False, _reader(job, manifest))
        return Pull.of(
            wanted,
            get_request=self._request(job, "GET", manifest),
            head_request=self._request(job, "HEAD", manifest),
            forgotten_tags=self._core.store.forgotten_tags,
            fingerprint=self._core.upstream.callers.fingerprint(None),
            writes=self._core.not_found.writes,
        )

    def _request(self, job: _Job, method: str, endpoint: Blob | Manifest) -> UpstreamRequest:
        registry, scheme = registry_of(self._core.settings, job.target)
        url = Url(scheme, registry.host, registry.port, build_path(endpoint))
        accept = (("Accept", ", ".join(ACCEPTED)),) if isinstance(endpoint, Manifest) else ()
        return UpstreamRequest(method, url, accept, access=Access(endpoint.name))


def _reader(job: _Job, endpoint: Blob | Manifest) -> Reader:
    """Return who fetches: nobody with a login of its own."""
    return Reader(Repository(Registry.parse(job.target.registry or ""), endpoint.name), NOBODY)


def _count(job: _Job) -> None:
    job.contents += 1
