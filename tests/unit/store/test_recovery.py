"""regproxy.store.recovery: rows and files meet again after a crash, and nothing unverified is served meanwhile."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.ingest import Ingest
from regproxy.store.layout import Layout
from regproxy.store.recovery import Doubts, beat, beat_no_more

type OpenStore = Callable[..., Store]
type Hold = Callable[[Store, Digest], Awaitable[Ingest]]
type Landed = Callable[[Store, Digest], Awaitable[None]]

BODIES = [b"first", b"second", b"third"]
DIGESTS = [Digest.of(body) for body in BODIES]


async def _filled(open_store: OpenStore) -> Store:
    store = open_store()
    for digest, body in zip(DIGESTS, BODIES, strict=True):
        await store.put_content(digest, body, "application/json")
    return store


def _crash(store: Store) -> None:
    """Close, and leave the traces of not having been closed."""
    store.close()
    beat(Layout(store.directory))


def _is_served(store: Store, digest: Digest) -> bool:
    stored = store.open_content(digest)
    if stored is not None:
        stored.close()
    return stored is not None


async def test_after_a_clean_close_there_is_no_doubt(open_store: OpenStore) -> None:
    """A normal restart looks at no file."""
    store = await _filled(open_store)
    store.close()
    assert not Layout(store.directory).heartbeat.exists()

    again = open_store()

    assert not again._doubts
    assert all(_is_served(again, digest) for digest in DIGESTS)


async def test_content_written_shortly_before_a_crash_is_hashed_before_it_is_served(open_store: OpenStore) -> None:
    """A power loss can leave zeros under the right name and size: they are removed, the rest is served again."""
    store = await _filled(open_store)
    _crash(store)
    Layout(store.directory).content(DIGESTS[1]).write_bytes(bytes(len(BODIES[1])))

    again = open_store()
    assert [_is_served(again, digest) for digest in DIGESTS] == [False, False, False]
    outcome = await again.reconcile()

    assert (outcome.right, outcome.removed) == (2, 1)
    assert [_is_served(again, digest) for digest in DIGESTS] == [True, False, True]
    assert await again.media_type(DIGESTS[0]) == "application/json"
    assert await again.media_type(DIGESTS[1]) is None


async def test_content_written_long_before_a_crash_is_served_at_once(open_store: OpenStore) -> None:
    """A terabyte is not hashed again because the last minute is in doubt."""
    store = await _filled(open_store)
    for digest in DIGESTS[:2]:
        os.utime(Layout(store.directory).content(digest), (time.time() - 3600, time.time() - 3600))
    _crash(store)

    again = open_store()

    assert [_is_served(again, digest) for digest in DIGESTS] == [True, True, False]


async def test_content_in_doubt_that_is_fetched_again_is_served(open_store: OpenStore) -> None:
    """The file in doubt, here a spoiled one, is replaced and not trusted."""
    store = await _filled(open_store)
    _crash(store)
    Layout(store.directory).content(DIGESTS[0]).write_bytes(b"zeros")
    again = open_store()

    await again.put_content(DIGESTS[0], BODIES[0], "application/json")

    assert _is_served(again, DIGESTS[0])
    assert Layout(store.directory).content(DIGESTS[0]).read_bytes() == BODIES[0]
    assert not _is_served(again, DIGESTS[1])


async def test_content_in_doubt_that_is_downloaded_again_is_served_and_counted_once(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """The verified download takes the place of the file in doubt, here one that has lost its row, too."""
    store = await _filled(open_store)
    before = store.usage.content_bytes
    store.close()
    layout = Layout(store.directory)
    layout.database.write_bytes(b"no database at all, nothing like it" * 1000)
    beat(layout)
    again = open_store()
    ingest = await hold(again, DIGESTS[0])
    await ingest.begin(len(BODIES[0]), None)
    await ingest.write([BODIES[0]])
    await ingest.finish()
    await landed(again, DIGESTS[0])

    assert _is_served(again, DIGESTS[0])
    assert not _is_served(again, DIGESTS[1])
    assert again.usage.content_bytes == before


async def test_a_file_without_a_row_is_counted_hashed_and_adopted(open_store: OpenStore) -> None:
    """A crash between rename and commit loses nothing, and a stranger under a false name is removed."""
    store = await _filled(open_store)
    before = store.usage
    _crash(store)
    layout = Layout(store.directory)
    orphan, stranger = Digest.of(b"orphan"), Digest.of(b"stranger")
    for digest, body in ((orphan, b"orphan"), (stranger, b"not what the name says")):
        layout.content(digest).parent.mkdir(parents=True, exist_ok=True)
        layout.content(digest).write_bytes(body)

    again = open_store()
    assert again.usage.content_bytes == before.content_bytes + 2 * 4096
    await again.reconcile()

    assert _is_served(again, orphan)
    assert await again.media_type(orphan) == ""
    assert not layout.content(stranger).exists()
    assert again.usage.content_bytes == before.content_bytes + 4096


async def test_a_row_without_a_file_is_removed(open_store: OpenStore) -> None:
    """The cap is not held by content that is not there."""
    store = await _filled(open_store)
    _crash(store)
    Layout(store.directory).content(DIGESTS[2]).unlink()

    again = open_store()
    await again.reconcile()

    assert again.usage.content_bytes == 2 * 4096
    assert await again.media_type(DIGESTS[2]) is None


async def test_a_damaged_index_is_rebuilt_from_the_content(open_store: OpenStore) -> None:
    """After a clean close and a damaged database the content is served at once, counted, and gets its rows back."""
    store = await _filled(open_store)
    store.close()
    Layout(store.directory).database.write_bytes(b"no database at all, nothing like it" * 1000)

    again = open_store()
    assert all(_is_served(again, digest) for digest in DIGESTS)
    assert again.usage.content_bytes == 3 * 4096
    await again.reconcile()

    assert [await again.media_type(digest) for digest in DIGESTS] == ["", "", ""]
    assert again.usage.content_bytes == 3 * 4096


async def test_content_stored_anew_while_it_is_hashed_is_not_removed(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict over the old file does not hit the new one."""
    store = await _filled(open_store)
    _crash(store)
    Layout(store.directory).content(DIGESTS[0]).write_bytes(b"spoiled")
    again = open_store()
    hashing, hashed = asyncio.Event(), asyncio.Event()

    async def late_verdict(*_: object) -> bool:
        hashing.set()
        await hashed.wait()
        return False

    monkeypatch.setattr("regproxy.store.recovery.is_true_to_name", late_verdict)
    again._doubts.unverified.intersection_update({DIGESTS[0]})
    reconciling = asyncio.ensure_future(again.reconcile())
    await hashing.wait()
    Layout(store.directory).content(DIGESTS[0]).unlink()
    await again.put_content(DIGESTS[0], BODIES[0], "")
    monkeypatch.undo()
    hashed.set()
    await reconciling

    assert _is_served(again, DIGESTS[0])


async def test_content_larger_than_one_step_is_hashed_to_its_end(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change behind the first step is found, and content of many steps is right."""
    monkeypatch.setattr("regproxy.store.recovery._READ_BYTES", 10)
    bodies = [os.urandom(2000), os.urandom(2000), os.urandom(640)]
    store = open_store()
    for body in bodies:
        await store.put_content(Digest.of(body), body, "")
    _crash(store)
    Layout(store.directory).content(Digest.of(bodies[1])).write_bytes(bodies[1][:-1] + b"?")

    again = open_store()
    await again.reconcile()

    assert [_is_served(again, Digest.of(body)) for body in bodies] == [True, False, True]


async def test_doubts_survive_a_close_before_they_are_settled(open_store: OpenStore) -> None:
    """A proxy that is restarted twice quickly still hashes what is in doubt."""
    _crash(await _filled(open_store))
    open_store().close()

    assert not _is_served(open_store(), DIGESTS[0])


def test_the_heartbeat_says_when_it_last_beat(layout: Layout) -> None:
    """A beat renews the time, the end of beating removes the file."""
    beat(layout)
    os.utime(layout.heartbeat, (5.0, 5.0))
    beat(layout)
    assert layout.heartbeat.stat().st_mtime > 1000

    beat_no_more(layout)
    beat_no_more(layout)
    assert not layout.heartbeat.exists()


@pytest.mark.parametrize(
    ("doubts", "any_left"),
    [
        (Doubts(), False),
        (Doubts(unverified={DIGESTS[0]}), True),
        (Doubts(unindexed={DIGESTS[0]: 1.0}), True),
        (Doubts(check_rows=True), True),
    ],
)
def test_doubts_are_true_while_something_is_open(doubts: Doubts, any_left: bool) -> None:
    """Housekeeping asks just that."""
    assert bool(doubts) is any_left
