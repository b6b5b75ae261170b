"""Warm reads: what a connection answers by itself, because nothing has to wait and nobody has to be asked.

The same decisions as on the way of the hooks, by the same parts, in the same order. Whatever is not a plain yes is
left to that way: it answers, refuses or asks.
"""

import time
from collections.abc import Mapping
from functools import lru_cache

from regproxy.engine.bodies import FileBody, Sent
from regproxy.engine.request_head import RequestHead
from regproxy.engine.warm import Asked, WarmAnswer
from regproxy.oci.endpoint import Blob, Endpoint, EndpointError, Manifest, Ping, build_path, parse_endpoint
from regproxy.oci.names import HTTPS_PORT, names
from regproxy.policy.image_rules import may_use
from regproxy.policy.mirror import is_api, is_api_root
from regproxy.policy.tiers import request_class
from regproxy.stack.access_log import AccessLog, Entry, UpstreamPart, cache_fields
from regproxy.stack.access_questions import Reader
from regproxy.stack.answers import passed_on
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.client_rules import ClientRules
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange
from regproxy.stack.interception import Interception
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.mirror_door import API_ROOT_BODY, API_ROOT_FIELDS, MirrorDoor, mirror_fields
from regproxy.stack.ping import RegistryPing
from regproxy.stack.push_bypass import asks_what_to_push, may_push
from regproxy.stack.reads import Read
from regproxy.store.errors import StoreError

_CACHED_TARGET_CHARACTERS = 512
"""Names and digests fit; what a hostile client makes up is not to take memory."""

_known_endpoint = lru_cache(maxsize=4096)(parse_endpoint)


def _endpoint(method: str, target: str) -> Endpoint:
    """Read a request; what is asked for again and again is read once. Raises EndpointError."""
    read = _known_endpoint if len(target) <= _CACHED_TARGET_CHARACTERS else parse_endpoint
    return read(method, target)


class WarmReads:
    """`engine.warm.WarmReads` over the caches."""

    def __init__(  # noqa: PLR0913 - the parts that it asks, and who hears of it
        self,
        core: Core,
        interception: Interception,
        ping: RegistryPing,
        manifests: ManifestCache,
        blobs: BlobCache,
        *,
        log: AccessLog,
        mirror_door: MirrorDoor | None = None,
    ) -> None:
        self._core = core
        self._log = log
        self._interception = interception
        self._ping = ping
        self._manifests = manifests
        self._blobs = blobs
        self._mirror_door = mirror_door or MirrorDoor(core)
        self._rules = ClientRules(core)

    def intercepts(self, host: str, port: int, client_ip: str) -> bool:
        """Whether a CONNECT of this client to this host ends in our TLS."""
        core = self._core
        if not core.ready or not may_use(client_ip, core.settings.allow_clients):
            return False
        # A login at the proxy is checked by the other way.
        return not core.settings.proxy_logins and self._interception.registry_at(host, port) is not None

    def answer(self, asked: Asked) -> WarmAnswer | None:
        """Answer a GET or HEAD of stored content; at the end all goes the other way, which closes connections."""
        if self._core.is_ending:
            return None
        settings = self._core.settings
        if not asked.host:
            return self._mirrored(asked)
        known = self._interception.registry_at(asked.host, asked.port)
        if known is None or not names(asked.head.field("host"), known[0].host):
            return None
        try:
            endpoint = _endpoint(asked.head.method, asked.head.target)
        except EndpointError:
            return None
        own_authorization = asked.head.field("authorization")
        client = self._core.identities.recall(own_authorization)
        if client is None or (asks_what_to_push(asked.head.method, endpoint) and may_push(settings, own_authorization)):
            return None
        wanted = request_class(endpoint, settings.tiers, caching_enabled=settings.enable_manifest_cache)
        registry, plain_http = known
        scheme = "http" if plain_http else "https"
        return self._hit(Exchange(registry, scheme, endpoint, wanted, client=client), asked)

    def _mirrored(self, asked: Asked) -> WarmAnswer | None:
        """Answer a request to the mirror door. A login at the proxy is checked by the other way."""
        settings, head = self._core.settings, asked.head
        if settings.proxy_logins or settings.mirror_registries == () or not is_api(head.target):
            return None
        if not may_use(asked.client_ip, settings.allow_clients):
            return None
        if is_api_root(head.target):
            body = API_ROOT_BODY if head.method == "GET" else b""
            return WarmAnswer(200, {**API_ROOT_FIELDS, "content-length": str(len(body))}, body, None)
        try:
            exchange, _ = self._mirror_door.exchange(head.method, head.target)
        except EndpointError:
            return None
        return self._hit(exchange, asked)

    def _hit(self, exchange: Exchange, asked: Asked) -> WarmAnswer | None:
        exchange.cache_status, exchange.answered_at_s = CacheStatus.HIT, time.time()
        is_denied = self._rules.denial(exchange, asked.head.target, asked.client_ip) is not None
        try:
            return None if is_denied else self._at_hand(exchange, asked.head)
        except StoreError:
            return None  # the other way meets the same error, and says it

    def sent(self, asked: Asked, answer: WarmAnswer, sent: Sent) -> None:
        """Log the answer."""
        exchange = answer.receipt
        if exchange is None:
            return  # the mirror door's own `/v2/` is in no log, as the proxy's other pages
        assert isinstance(exchange, Exchange)
        registry, target = exchange.registry, asked.head.target
        if not asked.host:
            assert isinstance(exchange.endpoint, Blob | Manifest)
            target = build_path(exchange.endpoint)
        self._log.write(
            Entry(
                method=asked.head.method,
                target=target,
                host=registry.host,
                status=answer.status,
                sent_bytes=sent.body_bytes,
                client_ip=asked.client_ip,
                user_agent=asked.head.field("user-agent") or "",
                upstream=UpstreamPart(
                    registry.host if registry.port == HTTPS_PORT else f"{registry.host}:{registry.port}"
                ),
                began_s=asked.began_s,
                exchange=exchange,
                error=sent.error,
            )
        )

    def _at_hand(self, exchange: Exchange, head: RequestHead) -> WarmAnswer | None:
        match exchange.endpoint:
            case Ping():
                return self._known_ping(exchange, head)
            case Blob() as blob:
                is_allowed = self._core.access.allows(Reader.of(exchange, blob.name), blob.digest)
                file = self._blobs.stored(blob, Read.of_head(head)) if is_allowed else None
                if file is None:
                    return None
                return self._answer(exchange, file.status, file.fields, file.body or b"", file.length_bytes)
            case Manifest() as manifest:
                served = self._manifests.warm(exchange, manifest, Read.of_head(head))
                if served is None:
                    return None
                return self._answer(exchange, served.status, served.fields, served.body, served.length_bytes)
            case _:
                return None

    def _known_ping(self, exchange: Exchange, head: RequestHead) -> WarmAnswer | None:
        """Answer a ping that proves nothing: a password in it is to be checked by the registry."""
        known = self._ping.warm(exchange.registry)
        if known is None or head.method != "GET" or head.field("authorization") is not None:
            return None
        fields = passed_on(known)
        if len(fields) > len(set(fields)):
            return None  # several challenges: a warm answer has one field of a name
        exchange.cache_status = CacheStatus.NONE
        return self._answer(exchange, known.status, fields, known.body, None)

    def _answer(
        self,
        exchange: Exchange,
        status: int,
        fields: Mapping[str, str],
        content: bytes | FileBody,
        length_bytes: int | None,
    ) -> WarmAnswer:
        """Add what every answer has; `length_bytes` is None when the content is all there is."""
        length = content.length_bytes if isinstance(content, FileBody) else len(content)
        described = {"content-length": str(length if length_bytes is None else length_bytes)}
        told = cache_fields(exchange, self._core.settings.compat)
        return WarmAnswer(status, {**fields, **described, **told, **mirror_fields(exchange)}, content, exchange)
