"""Who may read what is stored: asks what is known, else the registry, and remembers its answers.

The caches ask here before they serve, and tell here what the registry answered them. The rules are `policy.access`,
the memory is `store.access_book`. A registry is asked with the client's own authorization, by a HEAD of the very
content that is wanted; a content that it has lost is no reason to refuse who may still read the repository.
"""

import asyncio
import dataclasses
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Manifest, parse_endpoint
from regproxy.oci.errors import ErrorCode, error_body
from regproxy.oci.names import Registry
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.errors import Answer, UpstreamUnavailable
from regproxy.origin.parts import OnOpened
from regproxy.origin.patience import within
from regproxy.policy.access import (
    GIVEN_TO,
    AccessRules,
    Known,
    PrivateImages,
    Repository,
    may_take_at_its_word,
)
from regproxy.policy.breaker import Need
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.policy.openers import OpenedBy
from regproxy.policy.redirects import Url
from regproxy.shared.access import SharedAccess
from regproxy.stack.access_questions import AccessQuestions, Reader, Wish, challenge_for
from regproxy.store.access_book import AccessBook
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.ingest import Ingest

_CODES = {401: ErrorCode.UNAUTHORIZED, 403: ErrorCode.DENIED}
_JSON = "application/json; charset=utf-8"

CHECK_LIMIT_S = 5.0
"""How long a client that could be served without an answer waits for one."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The client may have the stored content."""

    reason: str | None = None
    """Why, if the registry could not be asked."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The client gets this answer instead."""

    answer: Answer
    reason: str


@dataclass(frozen=True, slots=True)
class FromRegistry:
    """Only what the registry itself sends shows whether the client may have it."""


type Verdict = Allowed | Refused | FromRegistry


class Arrival:
    """One content that is fetched: who let it out, and whether it came."""

    def __init__(self, book: AccessBook, reader: Reader, digest: Digest) -> None:
        self._book = book
        self._reader = reader
        self._digest = digest

    async def watch(self, ingest: Ingest, fetch: Callable[[OnOpened], Coroutine[None, None, None]]) -> None:
        """Fetch it. Raises what `fetch` raises.

        Its first reader may be back, for what is now stored, before the fetch has returned: by then it must be known.
        """
        with self._book.arriving() as arriving:
            opener = OpenedBy.CLIENT

            def opened(opened_by: OpenedBy) -> None:
                nonlocal opener
                opener = opened_by
                arriving.begin(self._reader.repository, self._digest, GIVEN_TO[opened_by], self._reader.client)

            def verified() -> None:
                # Not before: a page of some other kind, for strangers, may have been what was opened.
                repository, client = self._reader.repository, self._reader.client
                self._book.answered(repository, opener, client, let_in=True, now_s=time.time())
                arriving.arrived()

            ingest.when_verified(verified)
            await fetch(opened)


class AccessControl:
    """Decides for the caches. For the event loop."""

    def __init__(  # noqa: PLR0913 - what it decides by, and whom it asks
        self,
        rules: AccessRules,
        private_images: PrivateImages,
        store: Store,
        upstream: AuthorizedUpstream,
        store_failed: Callable[[StoreError], None],
        *,
        others: SharedAccess | None = None,
    ) -> None:
        self._rules = rules
        self._shares_all = private_images is PrivateImages.SHARE
        self._store = store
        self._questions = AccessQuestions(upstream)
        self._upstream = upstream
        self._store_failed = store_failed
        self._others = others
        self._checking: weakref.WeakValueDictionary[Reader, asyncio.Lock] = weakref.WeakValueDictionary()

    def allows(self, reader: Reader, digest: Digest | None) -> bool:
        """Whether memory knows that the client may read; `None` is what a tag names. Raises StoreError."""
        if self._shares_all:
            return True
        known = self._store.access.recall(reader.repository, reader.client, digest)
        return self._rules.allows(known, time.time()) is not None

    async def may_read(self, reader: Reader, digest: Digest | None) -> bool:
        """Whether it is known that the client may read."""
        known = await self._known(reader, digest)
        return self._shares_all or self._rules.allows(known, time.time()) is not None

    async def may_read_in_outage(self, reader: Reader, digest: Digest) -> bool:
        """Whether the client may read although the registry gives no answer."""
        known = await self._known(reader, digest)
        return self._shares_all or self._rules.allows_in_outage(known, time.time()) is not None

    async def admit(self, wish: Wish) -> Verdict:
        """Decide, and ask the registry if need be; once at a time for one client and repository."""
        if await self.may_read(wish.reader, wish.digest):
            return Allowed()
        if not (await self._known(wish.reader, wish.digest)).given:
            return await self._check(wish)
        lock = self._checking.setdefault(wish.reader, asyncio.Lock())
        async with lock:
            if await self.may_read(wish.reader, wish.digest):
                return Allowed()
            return await self._check(wish)

    async def learn(self, reader: Reader, answer: Answer, *, counts: bool = True) -> None:
        """Note whom the registry let read, or refused, if that answer counts."""
        if counts and answer.status in (200, 206, 401, 403):
            await self._answered(reader, answer, let_in=answer.status < 300)

    async def bind(self, reader: Reader, digest: Digest, answer: Answer) -> None:
        """Note that a repository gave a content, which was verified; before that is stored."""
        try:
            await self._store.access.known(reader.repository, reader.client, digest)
            self._store.access.bind(reader.repository, digest, GIVEN_TO[answer.opened_by])
        except StoreError as error:
            self._store_failed(error)

    async def deleted(self, repository: Repository, digest: Digest) -> None:
        """Note that a client had its registry delete a content: from now on the registry is asked who may read it."""
        try:
            self._store.access.unbind(repository, digest)
            await self._store.access.flush()
        except StoreError as error:
            self._store_failed(error)

    async def believes(self, reader: Reader, digest: Digest, answer: Answer) -> bool:
        """Whether a registry is believed that a repository has a stored content; then it is bound to it."""
        if self._shares_all or (await self._known(reader, digest)).given:
            return True
        try:
            holders = await self._store.access.holders(digest)
        except StoreError as error:
            self._store_failed(error)
            return False
        if not holders and self._others is not None:
            holders = await self._others.adopt_holders(digest)
            if not holders and not self._store.holds(digest):
                return False  # what is in the bucket has come from somewhere: without a word from where it stays there
        if not may_take_at_its_word(reader.repository.registry, holders):
            return False
        # What is still on its way may never come, and another registry may give it later: nothing to remember.
        if self._store.holds(digest):
            self._store.access.bind(reader.repository, digest, GIVEN_TO[answer.opened_by])
        return True

    async def arrival(self, reader: Reader, digest: Digest) -> Arrival:
        """Return what takes note of a content that is fetched. Raises StoreError."""
        await self._store.access.known(reader.repository, reader.client, digest)
        return Arrival(self._store.access, reader, digest)

    def arrives_for(self, reader: Reader, digest: Digest) -> bool:
        """Whether the registry gives what is on its way to this client too. Raises StoreError."""
        return self._store.access.arrives_for(reader.repository, reader.client, digest)

    def challenged(self, registry: Registry, answer: Answer) -> None:
        """Remember what a registry asks for."""
        challenge = answer.headers.get("WWW-Authenticate")
        if answer.status == 401 and challenge and self._store.is_open:
            self._store.access.challenged(registry, challenge)

    async def pinged(self, registry: Registry, answer: Answer) -> None:
        """Remember a registry's answer to `/v2/`: its challenge, or that it has none."""
        self.challenged(registry, answer)
        if answer.status == 200:
            await self._opened(registry, answer)

    async def _opened(self, registry: Registry, answer: Answer) -> None:
        """Remember of a registry that lets a client in without a login of its own what it would ask such a client."""
        if not self._store.is_open or await self.challenge(registry) is not None:
            return
        realm = self._upstream.logins.realm_of(Url.parse(f"{answer.origin}/v2/"))
        asked = "" if realm is None else f'Bearer realm="{realm.url}",service="{realm.service}"'
        self._store.access.challenged(registry, asked)

    async def refusal(self, reader: Reader, reason: str) -> Refused:
        """Refuse a client that has not shown lately that it may read, in the registry's own form."""
        repository = reader.repository
        challenge = await self.challenge(repository.registry)
        told = f"{reason}; this client has not shown lately that it may read {repository.name}, so it gets nothing"
        if not challenge:
            body = error_body(ErrorCode.DENIED, told)
            return Refused(Answer(403, {"Content-Type": _JSON}, body, ""), told)
        fields = {"Content-Type": _JSON, "WWW-Authenticate": challenge_for(challenge, repository.name)}
        return Refused(Answer(401, fields, error_body(ErrorCode.UNAUTHORIZED, told), ""), told)

    async def _check(self, wish: Wish) -> Verdict:
        """Ask the registry about a content."""
        may_do_without = await self.may_read_in_outage(wish.reader, wish.digest)
        try:
            async with within(CHECK_LIMIT_S, Need.OPTIONAL) if may_do_without else nullcontext():
                answer = await self._questions.about_content(wish)
                if answer is None:
                    return FromRegistry()
                if answer.status == 404 and (await self._known(wish.reader, wish.digest)).given:
                    answer = await self._of_lost(wish, answer)
        except UpstreamUnavailable as error:
            reason = str(error)
        except TimeoutError:
            reason = f"{wish.reader.repository.registry} did not answer in {CHECK_LIMIT_S:g} s"
        else:
            if not stale_allowed(Status(answer.status)):
                return await self._verdict(wish, answer)
            reason = f"{wish.reader.repository.registry} answered {answer.status}"
        return Allowed(reason) if may_do_without else await self.refusal(wish.reader, reason)

    async def _of_lost(self, wish: Wish, lost: Answer) -> Answer:
        """Return what counts when a registry has not any more what it had, or says so to whom it hides it from."""
        listed = await self._questions.about_repository(wish)
        if listed is None:
            return lost
        if listed.status == 200:
            return listed
        await self._answered(wish.reader, listed, let_in=False)
        return lost

    async def _verdict(self, wish: Wish, answer: Answer) -> Verdict:
        await self.learn(wish.reader, answer)
        if answer.status in (200, 206):
            return Allowed() if await self.believes(wish.reader, wish.digest, answer) else FromRegistry()
        reason = f"{wish.reader.repository.registry} answered {answer.status} for this client"
        code = _unknown(wish) if answer.status == 404 else _CODES.get(answer.status, ErrorCode.UNKNOWN)
        fields = {"Content-Type": _JSON}
        if "WWW-Authenticate" in answer.headers:
            fields["WWW-Authenticate"] = answer.headers["WWW-Authenticate"]
        return Refused(dataclasses.replace(answer, headers=fields, body=error_body(code, reason)), reason)

    async def _answered(self, reader: Reader, answer: Answer, *, let_in: bool) -> None:
        try:
            book, repository, client = self._store.access, reader.repository, reader.client
            await book.known(repository, client, None)
            book.answered(repository, answer.opened_by, client, let_in=let_in, now_s=time.time())
            self.challenged(repository.registry, answer)
            if let_in and answer.opened_by is not OpenedBy.CLIENT:
                await self._opened(repository.registry, answer)
            if not let_in:
                await book.flush()  # what a registry took back must not come again after a crash
        except StoreError as error:
            self._store_failed(error)

    async def _known(self, reader: Reader, digest: Digest | None) -> Known:
        try:
            known = await self._store.access.known(reader.repository, reader.client, digest)
            if self._others is None or self._shares_all or self._rules.allows(known, time.time()) is not None:
                return known
            if await self._others.learn(reader.repository, digest):
                known = self._store.access.recall(reader.repository, reader.client, digest)
        except StoreError as error:
            self._store_failed(error)
            return Known()
        return known

    async def challenge(self, registry: Registry) -> str | None:
        """Return what a registry asked for when it last refused; empty if it only answered, None if it never did."""
        try:
            known = await self._store.access.challenge(registry)
        except StoreError as error:
            self._store_failed(error)
            return None
        if known is None and self._others is not None:
            known = await self._others.challenge(registry)
            if known is not None:
                self._store.access.challenged(registry, known)
        return known


def _unknown(wish: Wish) -> ErrorCode:
    is_manifest = isinstance(parse_endpoint("HEAD", wish.request.url.target), Manifest)
    return ErrorCode.MANIFEST_UNKNOWN if is_manifest else ErrorCode.BLOB_UNKNOWN
