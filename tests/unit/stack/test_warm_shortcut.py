"""Warm reads past the hooks: the same answers, the same log line, and nothing that has to wait."""

import asyncio
import json
import os
from collections.abc import Callable

import pytest
from mitmproxy import http

from regproxy.engine.bodies import attached, detach
from regproxy.stack.access_log import AccessLog
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.interception import Interception
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.push_bypass import PushBypass
from regproxy.stack.warm_shortcut import WarmShortcut
from unit.stack.conftest import Configure, make_flow
from unit.stack.registry import OCI, Registry

MANIFEST, BLOB = b'{"schemaVersion":2}', b"layer" * 1000
TAG = "/v2/library/alpine/manifests/latest"


class Warm:
    """A stack whose store has a manifest and a blob."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self.core = core
        self.registry = registry
        self.manifest = registry.tag("latest", MANIFEST)
        self.blob = registry.blob(BLOB)
        self.manifests = ManifestCache(core)
        self.blobs = BlobCache(core)
        self.shortcut = WarmShortcut(
            core, Interception(core), PushBypass(core), self.manifests, self.blobs, AccessLog()
        )

    @property
    def blob_path(self) -> str:
        """Where the blob is."""
        return f"/v2/library/alpine/blobs/{self.blob}"

    def request(self, path: str, method: str = "GET", **fields: str) -> http.HTTPFlow:
        """Make a request that nothing has looked at."""
        headers = {"Accept": OCI} | {field.replace("_", "-"): value for field, value in fields.items()}
        return make_flow(method, "127.0.0.1", self.registry.port, path, headers, scheme="http")

    async def warm_up(self, ask: Callable[..., http.HTTPFlow]) -> None:
        """Pull both through the caches; a manifest is in memory when it has been read."""
        for _ in range(2):
            await self.manifests.request(ask(self.core, TAG, Accept=OCI))
        flow = ask(self.core, self.blob_path)
        await self.blobs.request(flow)
        detach(flow)
        while self.core.store.running(self.blob) is not None:  # noqa: ASYNC110 - the store tells readers only
            await asyncio.sleep(0.001)
        self.registry.take_asked()


@pytest.fixture
async def cold(configure: Configure, registry: Registry) -> Warm:
    return Warm(configure(ENABLE_MANIFEST_CACHE="true"), registry)


@pytest.fixture
async def warm(cold: Warm, ask: Callable[..., http.HTTPFlow]) -> Warm:
    await cold.warm_up(ask)
    return cold


@pytest.mark.parametrize("reference", ["latest", "digest"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_warm_manifest_is_answered(warm: Warm, reference: str, method: str) -> None:
    """Described as always, with the fields that say what the cache did, and without asking the registry."""
    path = TAG if reference == "latest" else TAG.replace("latest", str(warm.manifest))
    flow = warm.request(path, method)

    assert warm.shortcut.answer(flow)

    assert flow.response is not None
    assert flow.response.raw_content == (MANIFEST if method == "GET" else b"")
    assert flow.response.headers["content-length"] == str(len(MANIFEST))
    assert flow.response.headers["x-docker-registry-proxy-cache-upstream-status"] == "HIT"
    assert warm.registry.take_asked() == []


async def test_a_warm_blob_is_answered_from_its_file(warm: Warm) -> None:
    """Ranges as well."""
    flow = warm.request(warm.blob_path, Range="bytes=5-9")

    assert warm.shortcut.answer(flow)

    body = attached(flow)
    assert body is not None
    assert os.pread(body.fd, body.length_bytes, body.start) == b"layer"
    detach(flow)


@pytest.mark.parametrize(
    ("path", "method", "fields"),
    [
        (TAG, "GET", {"Cache_Control": "no-cache"}),
        (TAG, "GET", {"Accept": "application/other"}),
        (TAG, "PUT", {}),
        ("/v2/library/alpine/manifests/other", "GET", {}),
        ("/v2/", "GET", {}),
        ("/v2/library/alpine/tags/list", "GET", {}),
        ("/v2/a/../b", "GET", {}),
        (TAG, "GET", {"Host": "evil.example"}),
    ],
)
async def test_what_has_to_wait_or_to_be_refused_is_left_to_the_hooks(
    warm: Warm, path: str, method: str, fields: dict[str, str]
) -> None:
    """Nothing is answered, nothing is asked."""
    assert not warm.shortcut.answer(warm.request(path, method, **fields))
    assert warm.registry.take_asked() == []


async def test_what_is_not_stored_is_left_to_the_hooks(cold: Warm) -> None:
    """A blob that would have to be downloaded, say."""
    assert not cold.shortcut.answer(cold.request(cold.blob_path))
    assert not cold.shortcut.answer(cold.request(TAG))


async def test_a_store_that_fails_is_left_to_the_hooks(warm: Warm, caplog: pytest.LogCaptureFixture) -> None:
    """They meet the same error and say it."""
    warm.core.store.close()

    assert not warm.shortcut.answer(warm.request(warm.blob_path))
    assert caplog.text == ""


async def test_before_the_start_nothing_is_answered(warm: Warm) -> None:
    """There is no store yet."""
    core = Core()
    starting = WarmShortcut(
        core, Interception(core), PushBypass(core), ManifestCache(core), BlobCache(core), AccessLog()
    )

    assert not starting.answer(warm.request(TAG))


async def test_it_is_logged_as_any_other(warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with what was sent."""
    flow = warm.request(TAG)
    warm.shortcut.answer(flow)

    warm.shortcut.sent(flow, len(MANIFEST), None)

    line = json.loads(capsys.readouterr().out)
    assert (line["upstream_cache_status"], line["bytes_sent"]) == ("HIT", str(len(MANIFEST)))
