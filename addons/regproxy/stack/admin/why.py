"""Why: how an answer came about, what is known of an image or a digest, and what would be answered now."""

import time

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry, Tag
from regproxy.policy.access import AccessRules, PrivateImages, Repository
from regproxy.policy.closure import missing
from regproxy.policy.identities import NOBODY
from regproxy.policy.readers import readers_text
from regproxy.policy.targets import Target
from regproxy.policy.tiers import choose_tier, tag_lifetime_s
from regproxy.settings import Settings
from regproxy.stack.admin.images import IMAGE, Image, Stock, age_s, described
from regproxy.stack.admin.ingests import is_downloading
from regproxy.stack.admin.queries import COUNT, FLAG, NUMBER, TEXT, Json, RequestError, Schema, array, nullable, record
from regproxy.stack.admin.requests_of_all import RequestsOfAll
from regproxy.stack.core import Core
from regproxy.stack.recent_requests import Recent

MOST_REQUESTS = 20

REQUEST: Schema = record(
    number=COUNT,
    request_id=TEXT,
    age_s=NUMBER,
    method=TEXT,
    registry=TEXT,
    repository=TEXT,
    reference=TEXT,
    path=TEXT,
    status=nullable(COUNT),
    cache_status=TEXT,
    request_class=TEXT,
    sent_bytes=COUNT,
    duration_s=NUMBER,
    client_ip=TEXT,
    upstream=TEXT,
    fetched_bytes=TEXT,
    saved_bytes=COUNT,
    credential=TEXT,
    source=TEXT,
    error=TEXT,
    words=TEXT,
)

_IMAGE: Schema = record(
    image=IMAGE,
    key=TEXT,
    tier=nullable(TEXT),
    lifetime_s=nullable(NUMBER),
    fresh=FLAG,
    previous=nullable(TEXT),
    upstream=nullable(TEXT),
    credential=nullable(TEXT),
    missing=array(TEXT),
    readers=TEXT,
)
"""`lifetime_s`: for so long a tag is not asked for again, null for a digest, which always holds; `credential`: whose
login opened it; `missing`: what belongs to it and is not stored."""

_CONTENT: Schema = record(
    digest=TEXT, media_type=TEXT, size_bytes=COUNT, used_age_s=NUMBER, pinned=FLAG, needed_by=array(TEXT)
)

WHY: Schema = record(
    subject=TEXT,
    request=nullable(REQUEST),
    images=array(_IMAGE),
    content=nullable(_CONTENT),
    downloading=FLAG,
    requests=array(REQUEST),
)
"""`requests`: the last ones for the same, newest first, as far as they are remembered."""

_WORDS = {
    "HIT": "answered from the cache, nobody was asked",
    "MISS": "not stored: the registry gave it",
    "EXPIRED": "stored, but its time was up and the registry gave a new answer",
    "REVALIDATED": "stored, its time was up, and the registry confirmed it",
    "STALE": "stored, its time was up, and the registry gave no answer: the last good one was served",
    "BYPASS": "the cache had no part in it, on purpose",
    "": "not a matter of the cache",
}


async def readers_of(core: Core, image: Image) -> str:
    """Return who may read an image, in words."""
    if core.settings.private_images is PrivateImages.SHARE:
        return "everybody who may use the proxy: PRIVATE_IMAGES is share"
    now_s = time.time()
    rules = AccessRules(core.settings.access_ttl_s, core.settings.access_grace_s)
    repository = Repository(Registry.parse(image.registry), image.name)
    known = await core.store.access.known(repository, NOBODY, image.digest)
    counted_s = max(core.settings.access_ttl_s, core.settings.access_grace_s)
    logins = await core.store.inventory.logins(repository, now_s - counted_s)
    return readers_text(known, logins, rules, now_s)


async def explain(core: Core, stock: Stock, recent: RequestsOfAll, subject: str) -> Json:
    """Explain a request id, an image or a digest. Raises RequestError when it is none of these."""
    request = await recent.find(subject)
    now_s = time.time()
    if request is not None:
        target = _target_of(request)
    else:
        try:
            target = Target.parse(subject)
        except ValueError as error:
            raise RequestError(404, f"{error}. As a request's id it is not, or no longer, known here") from None
    images = [image for image in stock.images if target is not None and image.is_meant_by(target)]
    digest = target.reference if target is not None and isinstance(target.reference, Digest) else None
    row = stock.contents.get(digest) if digest is not None else None
    return {
        "subject": subject,
        "request": None if request is None else described_request(request, now_s),
        "images": [
            _explained(image, stock, core.settings, now_s) | {"readers": await readers_of(core, image)}
            for image in images
        ],
        "content": None
        if row is None
        else {
            "digest": str(row.digest),
            "media_type": row.media_type,
            "size_bytes": row.size_bytes,
            "used_age_s": age_s(row.used_at_s, now_s),
            "pinned": stock.is_pinned(row.digest),
            "needed_by": [image.text for image in stock.images if row.digest in stock.of(image)],
        },
        "downloading": digest is not None and row is None and await is_downloading(core, digest),
        "requests": [] if target is None else [described_request(each, now_s) for each in await _last(recent, target)],
    }


def described_request(request: Recent, now_s: float) -> dict[str, Json]:
    """Describe one request."""
    return {
        "number": request.number,
        "request_id": request.request_id,
        "age_s": age_s(request.at_s, now_s),
        "method": request.method,
        "registry": request.registry,
        "repository": request.name,
        "reference": request.reference,
        "path": request.path,
        "status": request.status,
        "cache_status": request.cache_status,
        "request_class": request.request_class,
        "sent_bytes": request.sent_bytes,
        "duration_s": round(request.duration_s, 3),
        "client_ip": request.client_ip,
        "upstream": request.upstream,
        "fetched_bytes": request.fetched_bytes,
        "saved_bytes": max(0, request.sent_bytes - int(request.fetched_bytes or 0)),
        "credential": request.credential,
        "source": request.source,
        "error": request.error,
        "words": _words(request) + (f" ({request.error})" if request.error else ""),
    }


def _words(request: Recent) -> str:
    if not request.source:
        return _WORDS[request.cache_status]
    if request.cache_status == "HIT":
        return "answered from the bucket, the registry was not asked for it"
    return f"{_WORDS[request.cache_status]}; from the bucket"


def _target_of(request: Recent) -> Target | None:
    if not request.reference:
        return None
    try:
        return Target(request.registry, request.name, Digest.parse(request.reference))
    except ValueError:
        return Target(request.registry, request.name, Tag(request.reference))


async def _last(recent: RequestsOfAll, target: Target) -> list[Recent]:
    reference = "" if target.reference is None else str(target.reference)
    return await recent.about(target.registry or "", target.name or "", reference, MOST_REQUESTS)


def _explained(image: Image, stock: Stock, settings: Settings, now_s: float) -> dict[str, Json]:
    tier = lifetime_s = None
    fresh = True
    if image.tag is not None:
        tag, cached = Tag(image.tag), settings.enable_manifest_cache
        chosen = choose_tier(tag, settings.tiers) if cached else None
        tier = "asked each time" if chosen is None else chosen.name
        lifetime_s = tag_lifetime_s(tag, settings.tiers, caching_enabled=cached)
        fresh = 0 <= now_s - (image.checked_at_s or 0.0) < lifetime_s
    source = image.source
    return {
        "image": described(image, stock, now_s),
        "key": image.text if image.tag is not None else f"{image.digest}",
        "tier": tier,
        "lifetime_s": lifetime_s,
        "fresh": fresh,
        "previous": None if image.previous is None else str(image.previous),
        "upstream": None if source is None else source.upstream,
        "credential": None if source is None else source.credential,
        "missing": [*sorted(map(str, missing(image.digest, stock.graph, stock.contents.keys())))],
    }
