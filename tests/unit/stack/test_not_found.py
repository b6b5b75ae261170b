"""What is not there is not asked for twice within seconds, and is there as soon as somebody made it."""

import base64
from types import SimpleNamespace

import pytest
from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry as Name
from regproxy.origin.errors import Answer
from regproxy.stack.not_found import LARGEST_BODY_BYTES, Absent, NotFound
from regproxy.stack.push_bypass import PushBypass
from unit.stack.conftest import Configure
from unit.stack.registry import Registry
from unit.stack.test_rate_limits import TAG, Ask, Client

BLOB = f"/v2/library/alpine/blobs/{Digest.of(b'absent')}"
QUAY = Name("quay.io", 443)
ABSENT = Absent(QUAY, "team/app", "latest", (), "")
GONE = Answer(404, {}, b"{}", "https://quay.io")


@pytest.fixture
async def client(configure: Configure, registry: Registry, ask: Ask) -> Client:
    return Client(configure(ALLOW_PUSH="true"), registry, ask)


class TestClients:
    @pytest.mark.parametrize("path", [TAG, TAG.replace("3.20", str(Digest.of(b"x"))), BLOB])
    async def test_a_404_is_asked_for_once(self, client: Client, registry: Registry, path: str) -> None:
        """Tag, digest and blob: the second client gets the registry's own words from memory."""
        first, again = await client.get(path), await client.get(path)
        assert (first[:2], again[:2]) == ((404, "MISS"), (404, "HIT"))
        assert first[2].raw_content == again[2].raw_content != b""
        assert registry.methods() == ["GET"]
        assert (await client.status(path, "HEAD") if path != BLOB else (404, "HIT")) == (404, "HIT")

    async def test_a_head_says_too_little_for_a_get(self, client: Client, registry: Registry) -> None:
        """It has no body; the next HEAD is answered."""
        statuses = [await client.status(method=method) for method in ("HEAD", "HEAD", "GET", "HEAD")]
        assert statuses == [(404, "MISS"), (404, "HIT"), (404, "MISS"), (404, "HIT")]
        assert registry.methods() == ["HEAD", "GET"]

    async def test_another_clients_eyes_may_see_more(self, client: Client, registry: Registry) -> None:
        """The answer is for the same authorization, and for the same media types."""
        own = "Basic " + base64.b64encode(b"own:p").decode()
        await client.get()
        assert await client.status(Authorization=own) == (404, "MISS")
        assert await client.status(Authorization=own) == (404, "HIT")
        assert await client.status(TAG.replace("alpine", "other")) == (404, "MISS")
        assert len(registry.methods()) == 3

    async def test_who_insists_hears_it_from_the_registry(self, client: Client, registry: Registry) -> None:
        """And with it everybody after: what was made meanwhile is there."""
        await client.get()
        registry.tag("3.20", b"{}")
        assert await client.status() == (404, "HIT")
        assert await client.status(Cache_Control="no-cache") == (200, "MISS")
        assert (await client.status())[0] == 200

    @pytest.mark.parametrize(
        ("method", "path", "status", "ended"),
        [
            ("PUT", TAG, 201, True),
            ("PUT", "/v2/library/alpine/blobs/uploads/1?digest=x", 201, True),
            ("POST", "/v2/library/alpine/blobs/uploads/", 202, True),
            ("PUT", TAG, 403, False),
            ("PUT", TAG.replace("alpine", "other"), 201, False),
        ],
    )
    async def test_a_push_ends_it(
        self, client: Client, registry: Registry, ask: Ask, method: str, path: str, status: int, ended: bool
    ) -> None:
        """Of the repository that was written to, if it was."""
        await client.get()
        push = ask(client.core, path, method)
        push.response = http.Response.make(status)
        await PushBypass(client.core).responseheaders(push)
        registry.tag("3.20", b"{}")
        assert (await client.status())[0] == (200 if ended else 404)

    async def test_it_can_be_turned_off(self, configure: Configure, registry: Registry, ask: Ask) -> None:
        """Then every 404 is the registry's."""
        client = Client(configure(NOT_FOUND_TIME="0"), registry, ask)
        assert [await client.status() for _ in range(2)] == [(404, "MISS")] * 2
        assert registry.methods() == ["GET", "GET"]


class TestMemory:
    def test_it_is_over_in_time(self) -> None:
        """To the second."""
        clock = SimpleNamespace(now_s=0.0)
        not_found = NotFound(10.0, lambda: clock.now_s)
        not_found.keep(ABSENT, GONE, method="GET", writes=0)
        for now_s, known in ((9.9, GONE), (10.0, None)):
            clock.now_s = now_s
            assert not_found.find(ABSENT, head=False) is known

    @pytest.mark.parametrize("answer", [Answer(404, {}, b"x" * (LARGEST_BODY_BYTES + 1), ""), Answer(401, {}, b"", "")])
    def test_only_a_small_404_is_kept(self, answer: Answer) -> None:
        """A refusal may be another one with the next token; a large body is nobody's to keep."""
        not_found = NotFound(10.0)
        not_found.keep(ABSENT, answer, method="GET", writes=0)
        assert not_found.find(ABSENT, head=False) is None

    def test_an_answer_from_before_a_push_is_not_kept(self) -> None:
        """It was asked for when there was nothing."""
        not_found = NotFound(10.0)
        writes = not_found.writes
        not_found.written(QUAY, "team/app")
        not_found.keep(ABSENT, GONE, method="GET", writes=writes)
        assert not_found.find(ABSENT, head=False) is None

    def test_clients_cannot_fill_the_memory(self) -> None:
        """The oldest go."""
        not_found = NotFound(10.0)
        for number in range(2000):
            not_found.keep(Absent(QUAY, "a", str(number), (), ""), GONE, method="GET", writes=0)
        kept = [n for n in range(2000) if not_found.find(Absent(QUAY, "a", str(n), (), ""), head=False) is not None]
        assert kept == list(range(1000, 2000))
