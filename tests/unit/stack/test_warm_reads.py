"""Warm reads: the answers of the long way, the same log line, and nothing that has to wait."""

import asyncio
import json
import os
import time
from collections.abc import Callable

import pytest
from mitmproxy import http

from regproxy.engine.bodies import FileBody, Sent, detach
from regproxy.engine.request_head import RequestHead
from regproxy.engine.warm import Asked, WarmAnswer
from regproxy.stack import ping as ping_module
from regproxy.stack.access_log import AccessLog
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.interception import Interception
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.ping import RegistryPing
from regproxy.stack.warm_reads import WarmReads
from unit.stack.conftest import Configure
from unit.stack.registry import OCI, Registry, status

MANIFEST, BLOB = b'{"schemaVersion":2}', b"layer" * 1000
TAG = "/v2/library/alpine/manifests/latest"

type Ask = Callable[..., http.HTTPFlow]


class Warm:
    """A stack whose store has a manifest and a blob."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self.core = core
        self.registry = registry
        self.manifest = registry.tag("latest", MANIFEST)
        self.blob = registry.blob(BLOB)
        self.ping = RegistryPing(core)
        self.manifests = ManifestCache(core)
        self.blobs = BlobCache(core)
        self.reads = WarmReads(core, Interception(core), self.ping, self.manifests, self.blobs, log=AccessLog(core))

    @property
    def blob_path(self) -> str:
        """Where the blob is."""
        return f"/v2/library/alpine/blobs/{self.blob}"

    def asked(self, path: str, method: str = "GET", **fields: str) -> Asked:
        """Make a request to the registry."""
        given = {"host": self.registry.name, "accept": OCI}
        given.update({field.replace("_", "-").lower(): value for field, value in fields.items()})
        head = RequestHead(method, path, tuple(given.items()))
        return Asked(head, "127.0.0.1", self.registry.port, "192.0.2.7", time.time())

    def answer(self, path: str, method: str = "GET", **fields: str) -> WarmAnswer | None:
        """Ask for an answer that is at hand."""
        return self.reads.answer(self.asked(path, method, **fields))

    async def warm_up(self, ask: Ask) -> None:
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
async def warm(cold: Warm, ask: Ask) -> Warm:
    await cold.warm_up(ask)
    return cold


@pytest.mark.parametrize("reference", ["latest", "digest"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_warm_manifest_is_answered(warm: Warm, ask: Ask, reference: str, method: str) -> None:
    """With the status, the fields and the body of the long way, and without asking the registry."""
    path = TAG if reference == "latest" else TAG.replace("latest", str(warm.manifest))
    flow = ask(warm.core, path, method, Accept=OCI)
    await warm.manifests.request(flow)
    assert flow.response is not None

    answer = warm.answer(path, method)

    assert answer is not None
    assert answer.status == flow.response.status_code == 200
    assert answer.content == flow.response.raw_content == (MANIFEST if method == "GET" else b"")
    fields = {field.lower(): value for field, value in answer.fields.items()}
    assert fields.pop("x-docker-registry-proxy-cache-upstream-status") == "HIT"
    assert fields.pop("x-docker-registry-proxy-cache-type").startswith("manifest-")
    assert fields.pop("cache-status") == "registry-proxy; hit"
    assert fields.pop("x-registry-proxy-request-id")
    assert fields == {field.lower(): value for field, value in flow.response.headers.items()}
    assert warm.registry.take_asked() == []


async def test_a_warm_blob_is_answered_from_its_file(warm: Warm) -> None:
    """Ranges as well."""
    answer = warm.answer(warm.blob_path, Range="bytes=5-9")

    assert answer is not None
    assert (answer.status, answer.fields["Content-Range"]) == (206, f"bytes 5-9/{len(BLOB)}")
    assert answer.fields["content-length"] == "5"
    assert isinstance(answer.content, FileBody)
    assert os.pread(answer.content.fd, answer.content.length_bytes, answer.content.start) == b"layer"
    answer.content.close()


async def test_a_head_of_a_warm_blob_has_no_body(warm: Warm) -> None:
    """But the length of it."""
    answer = warm.answer(warm.blob_path, "HEAD")

    assert answer is not None
    assert (answer.content, answer.fields["content-length"]) == (b"", str(len(BLOB)))


@pytest.mark.parametrize(
    ("path", "method", "fields"),
    [
        (TAG, "GET", {"Cache_Control": "no-cache"}),
        (TAG, "GET", {"Accept": "application/other"}),
        ("/v2/library/alpine/manifests/other", "GET", {}),
        ("/v2/", "GET", {}),
        ("/v2/library/alpine/tags/list", "GET", {}),
        ("/v2/a/../b", "GET", {}),
        (TAG, "GET", {"Host": "evil.example"}),
    ],
)
async def test_what_has_to_wait_or_to_be_refused_is_left_to_the_long_way(
    warm: Warm, path: str, method: str, fields: dict[str, str]
) -> None:
    """Nothing is answered, nothing is asked."""
    assert warm.answer(path, method, **fields) is None
    assert warm.registry.take_asked() == []


async def test_what_is_not_stored_is_left_to_the_long_way(cold: Warm) -> None:
    """A blob that would have to be downloaded, say."""
    assert cold.answer(cold.blob_path) is None
    assert cold.answer(TAG) is None


async def test_a_push_asks_the_registry_which_blobs_it_has(configure: Configure, registry: Registry, ask: Ask) -> None:
    """Where pushes are allowed, a HEAD of a blob is not ours to answer; a GET is."""
    warm = Warm(configure(ENABLE_MANIFEST_CACHE="true", ALLOW_PUSH="true"), registry)
    await warm.warm_up(ask)

    assert warm.answer(warm.blob_path, "HEAD") is None
    answer = warm.answer(warm.blob_path)
    assert answer is not None
    assert isinstance(answer.content, FileBody)
    answer.content.close()


async def test_a_store_that_fails_is_left_to_the_long_way(warm: Warm, caplog: pytest.LogCaptureFixture) -> None:
    """It meets the same error and says it."""
    warm.core.store.close()

    assert warm.answer(warm.blob_path) is None
    assert caplog.text == ""


async def test_before_the_start_nothing_is_intercepted(warm: Warm) -> None:
    """There is no store yet."""
    core = Core()
    starting = WarmReads(
        core, Interception(core), RegistryPing(core), ManifestCache(core), BlobCache(core), log=AccessLog(core)
    )

    assert not starting.intercepts("quay.io", 443, "192.0.2.7")
    assert warm.reads.intercepts("quay.io", 443, "192.0.2.7")
    assert not warm.reads.intercepts("example.com", 443, "192.0.2.7")


async def test_it_is_logged_as_any_other(warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with what was sent."""
    asked = warm.asked(f"{TAG}?x=s3cret", User_Agent="skopeo/1")
    answer = warm.reads.answer(asked)
    assert answer is not None

    warm.reads.sent(asked, answer, Sent(5, "cut"))

    line = json.loads(capsys.readouterr().out)
    assert (line["upstream_cache_status"], line["bytes_sent"], line["error"]) == ("HIT", "5", "cut")
    assert (line["method"], line["uri"], line["status"], line["host"]) == ("GET", TAG, "200", "127.0.0.1")
    assert (line["client_ip"], line["user_agent"]) == ("192.0.2.7", "skopeo/1")
    assert line["image"] == "library/alpine:latest"


class TestPing:
    """Every pull begins with it, and the registry's answer is the same for everyone who brings no credentials."""

    @pytest.mark.parametrize("code", [200, 401])
    async def test_a_ping_is_answered_as_the_last_one(self, warm: Warm, ask: Ask, code: int) -> None:
        """With the challenge, so that the client goes for its token."""
        warm.registry.override = status(code)
        await warm.ping.request(ask(warm.core, "/v2/"))
        warm.registry.take_asked()

        answer = warm.answer("/v2/")

        assert answer is not None
        assert (answer.status, answer.content) == (code, b'{"errors":[]}')
        assert "Bearer realm" in {field.lower(): value for field, value in answer.fields.items()}["www-authenticate"]
        assert warm.registry.take_asked() == []

    @pytest.mark.parametrize("code", [403, 404, 503])
    async def test_other_answers_are_not_kept(self, warm: Warm, ask: Ask, code: int) -> None:
        """They may be of the moment."""
        warm.registry.override = status(code)
        await warm.ping.request(ask(warm.core, "/v2/"))

        assert warm.answer("/v2/") is None

    async def test_credentials_are_the_registrys_to_check(self, warm: Warm, ask: Ask) -> None:
        """`docker login` asks with them: neither is its answer given to others, nor others' to it."""
        await warm.ping.request(ask(warm.core, "/v2/", Authorization="Basic eDp5"))
        assert warm.answer("/v2/") is None
        warm.registry.override = status(200)
        await warm.ping.request(ask(warm.core, "/v2/"))
        assert warm.answer("/v2/") is not None

        assert warm.answer("/v2/", Authorization="Basic eDp5") is None

    async def test_an_answer_stands_for_a_while_only(
        self, warm: Warm, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A registry may begin to want a token."""
        monkeypatch.setattr(ping_module, "KNOWN_S", 0.0)
        warm.registry.override = status(200)
        await warm.ping.request(ask(warm.core, "/v2/"))

        assert warm.answer("/v2/") is None

    async def test_the_memory_is_bounded(self, warm: Warm, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        """The registry that was asked longest ago goes."""
        monkeypatch.setattr(ping_module, "KNOWN_REGISTRIES", 0)
        warm.registry.override = status(200)
        await warm.ping.request(ask(warm.core, "/v2/"))

        assert warm.answer("/v2/") is None


class TestMirrorDoor:
    """A request to the proxy's own address: the target names the registry."""

    @staticmethod
    def asked(path: str, method: str = "GET", **fields: str) -> Asked:
        """Make a request as a mirror's client sends it; it may know the proxy by any name."""
        given = {"host": "proxy.test:3128", "accept": OCI, **{name.lower(): value for name, value in fields.items()}}
        return Asked(RequestHead(method, path, tuple(given.items())), "", 0, "192.0.2.7", time.time())

    @pytest.mark.parametrize("form", ["/v2/{registry}{rest}", "/v2{rest}?ns={registry}"])
    async def test_what_is_warm_is_answered(self, warm: Warm, capsys: pytest.CaptureFixture[str], form: str) -> None:
        """As by the other door, with the registry's name, and logged as by the other door."""
        asked = self.asked(form.format(registry=warm.registry.name, rest=TAG.removeprefix("/v2")))

        answer = warm.reads.answer(asked)

        assert answer is not None
        assert (answer.status, answer.content) == (200, MANIFEST)
        assert answer.fields["OCI-Namespace"] == warm.registry.name
        warm.reads.sent(asked, answer, Sent(len(MANIFEST), None))
        line = json.loads(capsys.readouterr().out)
        assert (line["uri"], line["host"], line["image"]) == (TAG, "127.0.0.1", "library/alpine:latest")
        assert warm.registry.take_asked() == []

    async def test_the_other_door_names_no_registry(self, warm: Warm) -> None:
        """`OCI-Namespace` is a mirror's."""
        answer = warm.answer(TAG)
        assert answer is not None
        assert "OCI-Namespace" not in answer.fields

    async def test_the_root_is_answered_and_not_logged(self, warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
        """It is asked before every pull, and by probes."""
        asked = self.asked("/v2/?ns=quay.io")
        answer = warm.reads.answer(asked)
        assert answer is not None
        assert (answer.status, answer.content, answer.fields["content-length"]) == (200, b"{}", "2")
        warm.reads.sent(asked, answer, Sent(2, None))
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        "path",
        ["/", "/ca.crt", "/v2/nowhere.test/a/manifests/b", "/v2/a/manifests/b?ns=x&ns=y", "/v2/quay.io/_catalog"],
    )
    async def test_all_else_is_left_to_the_long_way(self, warm: Warm, path: str) -> None:
        """Pages, refusals."""
        assert warm.reads.answer(self.asked(path)) is None

    async def test_a_login_is_checked_by_the_long_way(self, configure: Configure, registry: Registry, ask: Ask) -> None:
        """With PROXY_AUTH nothing is given out before it, not even that there is a mirror."""
        warm = Warm(configure(ENABLE_MANIFEST_CACHE="true", PROXY_AUTH="carol:geheim"), registry)
        await warm.warm_up(ask)

        assert warm.answer(TAG) is not None
        assert warm.reads.answer(self.asked(f"{TAG}?ns={registry.name}")) is None
        assert warm.reads.answer(self.asked("/v2/")) is None
