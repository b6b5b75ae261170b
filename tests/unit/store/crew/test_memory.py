"""What a worker keeps in memory is as old as the stamp that it keeps it with, whoever looks for it meanwhile."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.crew.store import CrewStore
from regproxy.store.records import TagKey, TagRecord
from unit.store.crew.crew_of_stores import crew_of_stores

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = Digest.of(MANIFEST)
KEY = TagKey("registry.test", "app", "1", ("a/b",))
OLD = TagRecord(Descriptor("a/b", DIGEST, len(MANIFEST)), 1.0)
NEW = TagRecord(Descriptor("a/b", Digest.of(b"new"), 3), 2.0)

type Change = Callable[[CrewStore], Awaitable[None]]
type Step[**P, R] = Callable[P, Awaitable[R]]


async def move(store: CrewStore) -> None:
    await store.put_tag_record(KEY, NEW)


async def forget(store: CrewStore) -> None:
    await store.forget_tag(KEY.registry, KEY.name, KEY.tag)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[CrewStore, CrewStore]]:
    with crew_of_stores(tmp_path) as (one, two):
        yield one.store, two.store


def late[**P, R](step: Step[P, R], meanwhile: Callable[[], Awaitable[None]]) -> Step[P, R]:
    """Return the step of a request that goes on late: a lot happens meanwhile."""

    async def late_step(*args: P.args, **kwargs: P.kwargs) -> R:
        result = await step(*args, **kwargs)
        await meanwhile()
        return result

    return late_step


@pytest.mark.parametrize("change", [move, forget])
async def test_an_answer_that_comes_late_is_not_kept_over_a_push(
    stores: tuple[CrewStore, CrewStore], monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    """Its record is written, another worker moves the tag, a second request looks for it: then the first goes on."""
    one, two = stores
    ledger = one._open_ledger()

    async def pushed_and_looked_for() -> None:
        await change(two)
        assert one.recall_tag(KEY) is None

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "put_text", late(ledger.put_text, pushed_and_looked_for))
        await one.put_tag_record(KEY, OLD)
    assert one.recall_tag(KEY) is None
    assert await one.tag_record(KEY) == await two.tag_record(KEY) != OLD


@pytest.mark.parametrize("change", [move, forget])
async def test_a_record_that_is_read_late_is_not_kept_over_a_push(
    stores: tuple[CrewStore, CrewStore], monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    """Two requests read it; the first is done, then another worker moves the tag and a third request looks for it."""
    one, two = stores
    await two.put_tag_record(KEY, OLD)
    ledger = one._open_ledger()
    text = ledger.text

    async def read_pushed_and_looked_for() -> None:
        monkeypatch.setattr(ledger, "text", text)
        assert await one.tag_record(KEY) == OLD
        await change(two)
        assert one.recall_tag(KEY) is None

    monkeypatch.setattr(ledger, "text", late(text, read_pushed_and_looked_for))
    assert await one.tag_record(KEY) == OLD
    assert one.recall_tag(KEY) is None


async def test_what_was_written_here_is_in_memory(stores: tuple[CrewStore, CrewStore]) -> None:
    """Without a look into the index, also when nobody had looked for it before."""
    one, _ = stores
    await one.put_tag_record(KEY, OLD)
    assert one.recall_tag(KEY) == OLD
    await one.put_tag_record(KEY, NEW)
    assert one.recall_tag(KEY) == NEW


async def test_a_manifest_that_is_read_late_is_not_kept_when_it_has_gone(
    stores: tuple[CrewStore, CrewStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker evicts it after a first reader is done and before a second one goes on."""
    one, two = stores
    await two.put_content(DIGEST, MANIFEST, "a/b")
    ledger = one._open_ledger()
    media_type = ledger.media_type

    async def read_and_evicted() -> None:
        monkeypatch.setattr(ledger, "media_type", media_type)
        assert await one.manifest(DIGEST) is not None
        path = one._layout.content(DIGEST)
        body = path.read_bytes()
        await two._open_ledger().drop(DIGEST, two._layout.content_file(DIGEST))
        assert one.recall_manifest(DIGEST) is None
        path.write_bytes(body)  # as if the late reader had opened it before

    monkeypatch.setattr(ledger, "media_type", late(media_type, read_and_evicted))
    assert await one.manifest(DIGEST) is not None
    assert one.recall_manifest(DIGEST) is None
