"""All that the admin API can do, in one table: what is asked how, who answers, and what the answer looks like."""

import time

from regproxy.stack.admin.exporting import EXPORTED, describe_export
from regproxy.stack.admin.images import IMAGES, list_images, take_stock
from regproxy.stack.admin.importing import IMPORTED, UPLOADED, Imports
from regproxy.stack.admin.outages import Outages
from regproxy.stack.admin.pinning import PIN, PINS, list_pins, pin, unpin
from regproxy.stack.admin.purging import PURGED, described_purge, plan_purge, purge, purge_shared
from regproxy.stack.admin.queries import COUNT, Json, Parameter, Query, RequestError, Route, Schema, array, record
from regproxy.stack.admin.requests_of_all import RequestsOfAll
from regproxy.stack.admin.status import STATUS, Status
from regproxy.stack.admin.verifying import VERIFICATION, Verification
from regproxy.stack.admin.warming import WARMINGS, Warmings
from regproxy.stack.admin.why import REQUEST, WHY, described_request, explain
from regproxy.stack.core import Core
from regproxy.stack.recent_requests import RecentRequests
from regproxy.store.content import Store
from regproxy.store.stored_content import StoredContent

LONGEST_WAIT_S = 30.0
MOST_REQUESTS = 500

_REQUESTS: Schema = record(newest=COUNT, requests=array(REQUEST))
"""`newest`: the number of the last request, to go on from."""

_TARGET = Parameter("target", "target", "an image, a repository, a registry or a digest")
_DIGEST = Parameter("digest", "digest", "of the content", required=True)
_REQUIRED_TARGET = Parameter("target", "target", _TARGET.meaning, required=True)


class Api:
    """The handlers, with what they work on."""

    def __init__(self, core: Core, recent: RecentRequests) -> None:
        self._core, self._recent = core, RequestsOfAll(recent, core.desk)
        self._status = Status(core, recent)
        self._verification = Verification()
        self._warmings = Warmings(core)
        self._imports = Imports(core)
        self.routes: tuple[Route, ...] = (*self._reading(), *self._steering(), *self._moving(), *Outages(core).routes)

    @property
    def _store(self) -> Store:
        return self._core.store

    def _reading(self) -> tuple[Route, ...]:
        return (
            Route(
                method="GET",
                path="/status",
                name="status",
                summary="What the proxy does now",
                handler=self._get_status,
                answer=STATUS,
            ),
            Route(
                method="GET",
                path="/images",
                name="listImages",
                summary="Which images are stored",
                handler=self._get_images,
                answer=IMAGES,
                parameters=(_TARGET,),
            ),
            Route(
                method="GET",
                path="/why",
                name="why",
                summary="Why an answer was as it was, or would be now",
                handler=self._get_why,
                answer=WHY,
                parameters=(Parameter("subject", "text", "an image, a digest, or the id of a request", required=True),),
            ),
            Route(
                method="GET",
                path="/requests",
                name="listRequests",
                summary="Requests as they end; waits for the next one",
                handler=self._get_requests,
                answer=_REQUESTS,
                parameters=(
                    Parameter("after", "count", "number of the last one that is known; without it, from now on"),
                    Parameter("last", "count", "so many that have ended already, and no waiting"),
                    Parameter("wait", "duration", f"how long to wait for one, at most {LONGEST_WAIT_S:g} s"),
                ),
            ),
            Route(
                method="GET",
                path="/pins",
                name="listPins",
                summary="What is never evicted",
                handler=self._get_pins,
                answer=PINS,
            ),
            Route(
                method="GET",
                path="/warmings",
                name="listWarmings",
                summary="How far images are that are pulled before they are needed",
                handler=self._get_warmings,
                answer=WARMINGS,
            ),
            Route(
                method="GET",
                path="/verification",
                name="verification",
                summary="How far the last verification is",
                handler=self._get_verification,
                answer=VERIFICATION,
            ),
        )

    def _moving(self) -> tuple[Route, ...]:
        return (
            Route(
                method="GET",
                path="/export",
                name="describeExport",
                summary="What an image consists of, and what of it is not stored",
                handler=self._get_export,
                answer=EXPORTED,
                parameters=(
                    Parameter("target", "target", "an image, or a repository with all of its tags", required=True),
                    Parameter("platforms", "text", "`linux/amd64,linux/arm64`, or `all`; without it what is stored"),
                ),
            ),
            Route(
                method="GET",
                path="/content",
                name="getContent",
                summary="Stored content as it is",
                handler=self._get_content,
                answer=None,
                parameters=(_DIGEST,),
            ),
            Route(
                method="PUT",
                path="/content",
                name="putContent",
                summary="Bring the next piece of a blob; without a body, how much of it is there",
                handler=self._put_content,
                answer=UPLOADED,
                parameters=(
                    _DIGEST,
                    Parameter("size_bytes", "count", "of the whole blob", required=True),
                    Parameter("offset", "count", "where the piece begins; 0 without it"),
                ),
                takes_content=True,
            ),
            Route(
                method="PUT",
                path="/manifests",
                name="putManifest",
                summary="Bring a manifest, when all that it names is there",
                handler=self._put_manifest,
                answer=IMPORTED,
                parameters=(
                    Parameter("target", "target", "registry/name@digest", required=True),
                    Parameter("media_type", "text", "of the manifest", required=True),
                ),
                takes_content=True,
            ),
            Route(
                method="PUT",
                path="/tags",
                name="putTag",
                summary="Let a tag mean a manifest that was brought, until its registry says otherwise",
                handler=self._put_tag,
                answer=IMPORTED,
                parameters=(
                    Parameter("target", "target", "registry/name:tag", required=True),
                    _DIGEST,
                    Parameter("checked_at", "count", "Unix time when the registry last said so; 0 without it"),
                ),
            ),
        )

    def _steering(self) -> tuple[Route, ...]:
        return (
            Route(
                method="POST",
                path="/purge",
                name="purge",
                summary="Remove images; blobs go with the last image that needs them",
                handler=self._post_purge,
                answer=PURGED,
                parameters=(
                    _TARGET,
                    Parameter("older_than", "duration", "only what was not used for so long"),
                    Parameter("dry_run", "flag", "only say what would go"),
                ),
            ),
            Route(
                method="PUT",
                path="/pins",
                name="pin",
                summary="Never evict this, nor what it will be when its tag moves",
                handler=self._put_pin,
                answer=PIN,
                parameters=(_REQUIRED_TARGET,),
            ),
            Route(
                method="DELETE",
                path="/pins",
                name="unpin",
                summary="Evict this again when its time comes",
                handler=self._delete_pin,
                answer=PINS,
                parameters=(_REQUIRED_TARGET,),
            ),
            Route(
                method="POST",
                path="/warmings",
                name="warm",
                summary="Pull an image before it is needed",
                handler=self._post_warmings,
                answer=WARMINGS,
                parameters=(
                    Parameter("target", "target", "one image, by tag or digest", required=True),
                    Parameter("platforms", "text", "`linux/amd64,linux/arm64`, or `all`; without it the proxy's own"),
                ),
            ),
            Route(
                method="POST",
                path="/verification",
                name="verify",
                summary="Hash all that is stored anew; what is wrong is removed",
                handler=self._post_verification,
                answer=VERIFICATION,
            ),
        )

    async def _get_status(self, _: Query) -> Json:
        return await self._status.described()

    async def _get_images(self, query: Query) -> Json:
        return list_images(await take_stock(self._store), query.target("target"), time.time())

    async def _get_why(self, query: Query) -> Json:
        return await explain(self._core, await take_stock(self._store), self._recent, query.text("subject"))

    async def _get_requests(self, query: Query) -> Json:
        after = min(query.count("after", self._recent.newest), self._recent.newest)
        wait_s = min(LONGEST_WAIT_S, query.duration_s("wait") or 0.0)
        last = query.count("last", 0)
        if last:
            found = await self._recent.last(min(last, MOST_REQUESTS))
        else:
            found = await self._recent.after(after, wait_s, MOST_REQUESTS)
        now_s = time.time()
        return {
            "newest": found[-1].number if found else after,
            "requests": [described_request(each, now_s) for each in found],
        }

    async def _get_pins(self, _: Query) -> Json:
        return await list_pins(self._store)

    async def _get_verification(self, _: Query) -> Json:
        return self._verification.described()

    async def _post_purge(self, query: Query) -> Json:
        target, older_than_s = query.target("target"), query.duration_s("older_than")
        if target is None and older_than_s is None:
            raise RequestError(400, "say what: target, older_than, or both; older_than=0 is everything")
        stock = await take_stock(self._store)
        plan = plan_purge(stock, target, None if older_than_s is None else time.time() - older_than_s)
        is_dry, shared = query.flag("dry_run"), None
        if not is_dry:
            await purge(self._store, stock, plan)
            # What is only old here may be in use elsewhere: the age of what is in a bucket is its lifecycle's.
            if self._core.shared is not None and target is not None and older_than_s is None:
                shared = await purge_shared(self._core.shared, plan, target)
        return described_purge(stock, plan, dry_run=is_dry, shared=shared)

    async def _put_pin(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await pin(self._store, target)

    async def _delete_pin(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await unpin(self._store, target)

    async def _get_warmings(self, _: Query) -> Json:
        return self._warmings.described()

    async def _post_warmings(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return self._warmings.start(target, query.text("platforms"))

    async def _post_verification(self, _: Query) -> Json:
        self._verification.start(self._store)
        return self._verification.described()

    async def _get_export(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await describe_export(self._store, target, query.text("platforms"))

    async def _get_content(self, query: Query) -> StoredContent:
        content = self._store.open_content(query.digest("digest"))
        if content is None:
            raise RequestError(404, f"{query.digest('digest')} is not stored")
        return content

    async def _put_content(self, query: Query) -> Json:
        place = query.count("size_bytes", 0), query.count("offset", 0)
        return await self._imports.put_content(query.digest("digest"), *place, query.body)

    async def _put_manifest(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await self._imports.put_manifest(target, query.text("media_type"), query.body)

    async def _put_tag(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await self._imports.put_tag(target, query.digest("digest"), query.count("checked_at", 0))
