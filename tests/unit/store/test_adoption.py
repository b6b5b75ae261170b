"""regproxy.store.adoption: an old cache is taken over into free room, and whatever is wrong with it is survived."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.image import random_chunks
from lab.old_cache import tree_bytes, write_cache_file
from regproxy.oci.digest import Digest
from regproxy.policy.adoption import OldCache
from regproxy.store import adoption, old_copy
from regproxy.store.adoption import MARKER, MISFITS, adopt_old_cache
from regproxy.store.content import Store
from regproxy.store.errors import StoreError

type OpenStore = Callable[..., Store]

INACTIVE_S = 60 * 86400.0
MANIFEST = b'{"schemaVersion":2,"config":{},"layers":[]}'
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NOBODY = 65534


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "regproxy")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the store's directory, in which the old cache lies."""
    return tmp_path / "cache"


def body_of(seed: str, size_bytes: int = 10_000) -> bytes:
    return b"".join(random_chunks(seed, size_bytes))


def old_blob(cache: Path, body: bytes, name: str = "library/alpine", **kwargs: int) -> Path:
    """Write a file of the old cache for a blob."""
    return write_cache_file(
        cache, f"/v2/{name}/blobs/sha256:{hashlib.sha256(body).hexdigest()}", body, "text/plain", **kwargs
    )


def old_manifest(cache: Path, reference: str, body: bytes = MANIFEST, content_type: str = OCI_MANIFEST) -> Path:
    """Write a file of the old cache for a manifest."""
    return write_cache_file(cache, f"/v2/library/alpine/manifests/{reference}", body, content_type)


def served(store: Store, body: bytes) -> bytes | None:
    """Return what the store serves for content."""
    stored = store.open_content(Digest.of(body))
    if stored is None:
        return None
    with stored:
        return os.pread(stored.fileno(), stored.size_bytes + 1, 0)


def old_files(cache: Path, pattern: str = "?/??/*") -> set[Path]:
    return set(cache.glob(pattern))


async def until_copying(cache: Path) -> None:
    """Return when a copy has begun."""
    async with asyncio.timeout(30):
        while True:
            if any(file.stat().st_size for file in old_files(cache, "partial/adoption-*")):
                return
            await asyncio.sleep(0.01)


def scratch_files(store: Store) -> list[Path]:
    return list((store.directory / "partial").iterdir())


async def adopt(store: Store, mode: OldCache = OldCache.COPY) -> None:
    await adopt_old_cache(store, mode, INACTIVE_S)


@pytest.mark.parametrize("size_bytes", [0, 1, 10_000, old_copy.STEP_BYTES, 2 * old_copy.STEP_BYTES + 1])
async def test_a_blob_is_taken_in(open_store: OpenStore, cache: Path, size_bytes: int) -> None:
    """Of whatever size, its bytes are served afterwards; nothing else stays in `partial`."""
    body = body_of("blob", size_bytes)
    old_blob(cache, body)
    store = open_store()

    await adopt(store)

    assert served(store, body) == body
    assert scratch_files(store) == []
    assert await store.media_type(Digest.of(body)) == ""


@pytest.mark.parametrize("content_type", [OCI_MANIFEST, "binary/octet-stream"])
async def test_a_manifest_is_taken_in_with_its_media_type(
    open_store: OpenStore, cache: Path, content_type: str
) -> None:
    """The type is that of the stored head, or the manifest's own when a redirect spoilt it."""
    old_manifest(cache, str(Digest.of(MANIFEST)), content_type=content_type)
    store = open_store()

    await adopt(store)

    manifest = await store.manifest(Digest.of(MANIFEST))
    assert manifest is not None
    assert (manifest.media_type, manifest.body) == (OCI_MANIFEST, MANIFEST)


async def test_without_the_kernels_copying_it_works_too(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where copy_file_range cannot copy, sendfile does."""

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    body = body_of("blob", old_copy.STEP_BYTES + 1)
    old_blob(cache, body)
    store = open_store()

    await adopt(store)

    assert served(store, body) == body


async def test_what_is_not_named_by_a_digest_or_does_not_hash_to_it_stays_out(
    open_store: OpenStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tags, damaged files, other versions and content that is no manifest are counted by reason, and stay."""
    good, wrong, short = body_of("good"), body_of("wrong"), body_of("short")
    old_blob(cache, good)
    old_manifest(cache, "latest")
    file = old_blob(cache, wrong)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    file = old_blob(cache, short)
    file.write_bytes(file.read_bytes()[:-1])
    file = old_blob(cache, b"")
    file.write_bytes(file.read_bytes()[:400])  # inside its key
    old_blob(cache, b"another version", version=3)
    old_manifest(cache, str(Digest.of(b"{}")), b"{}", "binary/octet-stream")
    before = tree_bytes(cache)
    store = open_store()

    await adopt(store)

    assert [served(store, body) for body in (good, wrong, short)] == [good, None, None]
    assert await store.manifest(Digest.of(MANIFEST)) is None
    last = caplog.messages[-1]
    for words in (
        "took in 1 contents",
        "1 are not named by a digest",
        "2 are not in the format",
        "3 do not hold what they are named after",
    ):
        assert words in last
    assert tree_bytes(cache) == before


async def test_content_of_two_names_is_taken_in_once(
    open_store: OpenStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old cache had it for each repository."""
    body = body_of("twice")
    old_blob(cache, body, "one")
    old_blob(cache, body, "two")
    store = open_store()

    await adopt(store)

    assert "took in 1 contents" in caplog.messages[-1]
    assert "1 were there already" in caplog.messages[-1]


async def test_a_directory_without_an_old_cache_is_no_news(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """No line, no marker."""
    store = open_store()
    await store.put_content(Digest.of(b"own"), b"own", "text/plain")

    await adopt(store)

    assert not [message for message in caplog.messages if "old cache" in message]
    assert not (store.directory / MARKER).exists()


async def test_it_happens_once_in_each_mode(open_store: OpenStore, cache: Path) -> None:
    """What was evicted after it was taken in does not come back; `move` after `copy` is a new job."""
    first, second = body_of("first"), body_of("second")
    old_blob(cache, first)
    store = open_store()
    await adopt(store)
    old_blob(cache, second)

    await adopt(store)
    assert served(store, second) is None

    await adopt(store, OldCache.MOVE)
    assert served(store, second) == second
    assert tree_bytes(cache) == {}


async def test_move_removes_what_is_stored_and_nothing_else(open_store: OpenStore, cache: Path) -> None:
    """Taken in now or there before: the old file goes. A damaged one, a tag and its folder stay."""
    new, known, wrong = body_of("new"), body_of("known"), body_of("wrong")
    for body in (new, known):
        old_blob(cache, body)
    damaged = old_blob(cache, wrong)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    tag = old_manifest(cache, "latest")
    store = open_store()
    await store.put_content(Digest.of(known), known, "")

    await adopt(store, OldCache.MOVE)

    assert served(store, new) == new
    assert old_files(cache) == {damaged, tag}
    assert old_files(cache, "?") == {damaged.parents[1], tag.parents[1]}


async def test_in_mode_move_the_copy_is_on_the_disk_before_the_old_file_goes(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss must not take both."""
    file = old_blob(cache, body_of("durable"))
    old_file_was_there = []
    monkeypatch.setattr(os, "fdatasync", lambda _: old_file_was_there.append(file.exists()))
    store = open_store()

    await adopt(store, OldCache.MOVE)

    assert old_file_was_there == [True]
    assert not file.exists()


async def test_nothing_that_is_stored_goes_for_it(
    open_store: OpenStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the cap is reached the rest stays out, most recently used first in; the last line says so."""
    own = body_of("own", 1_000_000)
    old = [body_of(f"old {number}", 400_000) for number in range(MISFITS + 10)]
    for number, body in enumerate(old):
        os.utime(old_blob(cache, body), (0, time.time() - number * 3600))
    store = open_store(cap_bytes=2_000_000)
    await store.put_content(Digest.of(own), own, "")

    await adopt(store)

    assert served(store, own) == own
    assert [served(store, body) is not None for body in old] == [True, True] + [False] * (len(old) - 2)
    assert store.usage.used_bytes <= 2_000_000
    assert "old cache: stopped, the cache or the disk is full" in caplog.messages
    assert f"{len(old) - 2} found no room" in caplog.messages[-1]
    assert scratch_files(store) == []


async def test_a_content_that_does_not_fit_does_not_keep_the_smaller_ones_out(
    open_store: OpenStore, cache: Path
) -> None:
    """One layer that is larger than the whole cache is passed over."""
    large, small = body_of("large", 3_000_000), body_of("small")
    old_blob(cache, large)
    os.utime(old_blob(cache, small), (0, time.time() - 3600))
    store = open_store(cap_bytes=2_000_000)

    await adopt(store)

    assert [served(store, body) for body in (large, small)] == [None, small]


async def test_the_free_space_floor_is_kept(open_store: OpenStore, cache: Path) -> None:
    """With no space left above the floor nothing is taken in."""
    body = body_of("blob")
    old_blob(cache, body)
    store = open_store(min_free_bytes=1 << 60)

    await adopt(store, OldCache.MOVE)

    assert served(store, body) is None
    assert len(tree_bytes(cache)) == 1


async def test_copies_stop_at_half_of_the_free_space(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is somebody else's, too; `move` takes the rest, because it needs no more room in the end."""
    bodies = [body_of(f"half {number}", 100_000) for number in range(4)]
    for body in bodies:
        old_blob(cache, body)
    monkeypatch.setattr(adoption, "free_bytes", lambda _: 500_000)
    store = open_store()

    await adopt(store)
    assert sum(served(store, body) is not None for body in bodies) == 2

    await adopt(store, OldCache.MOVE)
    assert all(served(store, body) == body for body in bodies)


async def test_a_full_disk_is_no_room(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a failure nor a reason to leave half a copy behind."""

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(os, "sendfile", refuse)
    old_blob(cache, body_of("blob"))
    store = open_store()

    await adopt(store)

    assert "1 found no room" in caplog.messages[-1]
    assert scratch_files(store) == []


async def test_a_file_on_a_bad_disk_is_passed_over(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An input error in one old file does not end the adoption."""

    def refuse(*_: object) -> int:
        raise OSError(5, "Input/output error")

    old_blob(cache, body_of("blob"))
    old_manifest(cache, str(Digest.of(MANIFEST)))
    store = open_store()
    with monkeypatch.context() as broken:
        broken.setattr(os, "copy_file_range", refuse)
        broken.setattr(os, "sendfile", refuse)
        await adopt(store)

    assert "2 cannot be read" in caplog.messages[-1]
    assert scratch_files(store) == []


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Yield a directory, and be a user without privileges while the test runs."""
    directory = Path(tempfile.mkdtemp(prefix="adoption-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(directory, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
            os.setegid(0)
        for folder in directory.rglob("*"):
            with contextlib.suppress(OSError):
                folder.chmod(0o700)
        shutil.rmtree(directory)


async def test_what_may_not_be_read_is_counted(as_nobody: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files and folders of nginx's own user: said in the last line, and everything else is taken in."""
    good, locked, hidden = body_of("good"), body_of("locked"), body_of("hidden")
    old_blob(as_nobody, good)
    old_blob(as_nobody, locked).chmod(0)
    old_blob(as_nobody, hidden).parents[1].chmod(0)
    store = Store(as_nobody, 1 << 30, INACTIVE_S, 0)
    store.open()
    try:
        await adopt(store)

        assert served(store, good) == good
        assert "2 cannot be read" in caplog.messages[-1]
    finally:
        store.close()


async def test_it_counts_as_last_used_when_the_old_file_was(open_store: OpenStore, cache: Path) -> None:
    """So what is pulled from now on is evicted later."""
    recent, older, new = (body_of(name, 600_000) for name in ("recent", "older", "new"))
    for body, days in ((recent, 1), (older, 2)):
        os.utime(old_blob(cache, body), (0, time.time() - days * 86400))
    store = open_store(cap_bytes=1_500_000)
    await adopt(store)
    assert served(store, recent) == recent  # an access, as the test looks; `older` has none

    await store.put_content(Digest.of(new), new, "")

    assert [served(store, body) is not None for body in (recent, older, new)] == [True, False, True]


async def test_a_store_that_is_closed_ends_it_at_once_and_quietly(
    open_store: OpenStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a file of 64 GiB: the task ends, no marker is written, the next start goes on."""
    huge = old_blob(cache, b"huge")
    os.truncate(huge, 64 << 30)  # a hole
    small = body_of("small")
    os.utime(old_blob(cache, small), (0, time.time() - 3600))
    store = open_store(cap_bytes=1 << 40)
    adopting = asyncio.ensure_future(adopt(store, OldCache.MOVE))
    await until_copying(cache)
    assert not adopting.done()

    store.close()
    await asyncio.wait_for(adopting, 30)

    assert not (cache / MARKER).exists()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    huge.unlink()
    again = open_store()
    await adopt(again)
    assert served(again, small) == small
    assert scratch_files(again) == []


async def test_a_cancelled_adoption_leaves_no_room_set_aside(open_store: OpenStore, cache: Path) -> None:
    """The accounts are as before, and the thread ends."""
    huge = old_blob(cache, b"huge")
    os.truncate(huge, 64 << 30)
    store = open_store(cap_bytes=1 << 40)
    before_bytes = store.usage.used_bytes
    adopting = asyncio.ensure_future(adopt(store, OldCache.MOVE))
    await until_copying(cache)
    assert store.usage.used_bytes > before_bytes

    adopting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await adopting

    assert store.usage.used_bytes == before_bytes


async def test_a_pull_at_the_same_time_is_neither_held_up_nor_undone(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that arrives while its old file is being copied is stored once; the copy is thrown away."""
    body = json.dumps({"config": {}, "layers": [], "padding": "x" * 1000}).encode()
    old_blob(cache, body)
    store = open_store()
    adopt_it = store.adopt

    async def after_the_pull(digest: Digest, path: Path, media_type: str, used_at_s: float) -> None:
        await store.put_content(digest, body, OCI_MANIFEST)
        await adopt_it(digest, path, media_type, used_at_s)

    monkeypatch.setattr(store, "adopt", after_the_pull)

    await adopt(store)

    assert await store.media_type(Digest.of(body)) == OCI_MANIFEST
    assert store.usage.entries == 1
    assert scratch_files(store) == []


async def test_misfits_that_are_not_in_a_row_do_not_end_it(open_store: OpenStore, cache: Path) -> None:
    """Only when nothing fits any more the rest is not tried."""
    fitting = [body_of(f"fits {number}") for number in range(3)]
    bodies = [body for fits in fitting for body in (*[body_of(f"{fits[:4]!r}{n}", 3_000_000) for n in range(9)], fits)]
    for number, body in enumerate(bodies):
        os.utime(old_blob(cache, body), (0, time.time() - number * 3600))
    store = open_store(cap_bytes=2_000_000)

    await adopt(store)

    assert [served(store, body) for body in fitting] == fitting


async def test_progress_is_told(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it looks and while it copies; the first line says what is to come, the last one what came."""
    monkeypatch.setattr(adoption, "PROGRESS_INTERVAL_S", 0)
    body = body_of("blob", 2 << 20)
    old_blob(cache, body)
    store = open_store()

    await adopt(store)

    left = f"its files still take 2 MiB in {cache}, OLD_CACHE=move would free them"
    assert caplog.messages == [
        f"old cache: found one of nginx in {cache}, looking at it",
        "old cache: looked at 1 of 1 folders",
        "old cache: 1 contents (2 MiB) to be verified and taken in (OLD_CACHE=copy)",
        "old cache: 1 of 1 contents, 2 MiB taken in",
        f"old cache: done, took in 1 contents (2 MiB); {left}",
    ]


async def test_a_store_that_fails_is_told_and_the_next_start_tries_again(
    open_store: OpenStore, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with the reason; the old file stays, also in mode move, and no marker is written."""
    file = old_blob(cache, body_of("blob"))
    store = open_store()

    async def refuse(*_: object) -> None:
        raise StoreError("the index is locked")

    monkeypatch.setattr(store, "adopt", refuse)

    await adopt(store, OldCache.MOVE)

    assert caplog.messages[-1] == "old cache: stopped, the next start goes on: the index is locked"
    assert old_files(cache) == {file}
    assert not (cache / MARKER).exists()
    assert scratch_files(store) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write to the old cache must not make us read, or remove, other files."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(old_copy.Unreadable, match="link"):
        old_copy.first_bytes(str(tmp_path / "link"))


def slices_of(cache: Path, body: bytes, name: str = "library/alpine", size_bytes: int = 1000) -> list[Path]:
    """Write the files of a cache with slices of so many bytes."""
    key = f"/v2/{name}/blobs/{Digest.of(body)}"
    return [
        write_cache_file(cache, f"{key}bytes={start}-{start + size_bytes - 1}", body[start : start + size_bytes])
        for start in range(0, len(body), size_bytes)
    ]


@pytest.mark.parametrize("size_bytes", [1, 1000, 1001, 5500])
async def test_slices_are_put_together(open_store: OpenStore, cache: Path, size_bytes: int) -> None:
    """Whatever the order of their files; in mode move all of them go."""
    body = body_of("sliced", size_bytes)
    slices_of(cache, body)
    store = open_store()

    await adopt(store, OldCache.MOVE)

    assert served(store, body) == body
    assert old_files(cache, "?") == set()


@pytest.mark.parametrize("lost", [0, 3, 5], ids=["first", "middle", "last"])
async def test_content_that_lacks_a_slice_stays_out(
    open_store: OpenStore, cache: Path, caplog: pytest.LogCaptureFixture, lost: int
) -> None:
    """Its other slices are left where they are."""
    body = body_of("sliced", 5500)
    slices = slices_of(cache, body)
    slices.pop(lost).unlink()
    store = open_store()

    await adopt(store, OldCache.MOVE)

    assert served(store, body) is None
    assert "1 do not hold what they are named after" in caplog.messages[-1]
    assert old_files(cache) == set(slices)


async def test_a_slice_of_another_length_stays_out(open_store: OpenStore, cache: Path) -> None:
    """Neither a gap nor an overlap is papered over."""
    for seed, change in (("short", slice(0, -1)), ("long", slice(None))):
        body = body_of(seed, 5500)
        file = slices_of(cache, body)[2]
        content = file.read_bytes()
        file.write_bytes(content[change] + (b"!" if seed == "long" else b""))
    store = open_store()

    await adopt(store)

    assert [served(store, body_of(seed, 5500)) for seed in ("short", "long")] == [None, None]


async def test_a_whole_file_counts_beside_its_slices(open_store: OpenStore, cache: Path) -> None:
    """Who changed from one predecessor to another has both."""
    body = body_of("both", 5500)
    old_blob(cache, body)
    slices_of(cache, body)[1].unlink()
    store = open_store()

    await adopt(store)

    assert served(store, body) == body
