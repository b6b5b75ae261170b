"""The cache cannot be used, for whatever reason: pulls go on uncached, and are cached again when it can."""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.image import random_chunks
from lab.lab import Lab
from lab.proxy import Proxy
from lab.skopeo import hash_files
from lab.small_disk import fill, small_disk

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
WAIT_S = 60.0
"""Housekeeping comes every 10 s; a loaded machine is slower."""


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.1)


class Pulls:
    """Pulls whole images and single blobs of the lab's registry through one proxy."""

    def __init__(self, lab: Lab, proxy: Proxy, build_image: MakeImage, directory: Path) -> None:
        self._lab, self._proxy, self._build_image, self._directory = lab, proxy, build_image, directory
        self._count = 0

    def image(self, seed: str) -> None:
        """Pull a new image with a real client, and see that all of it came."""
        self._count += 1
        image = self._build_image(seed)
        self._lab.push(image, f"library/disk-{self._count}")
        target = self._directory / f"pulled-{self._count}"
        self._proxy.skopeo().pull(f"{self._lab.noauth.name}/library/disk-{self._count}:latest", target)
        hashes = set(hash_files(target).values())
        assert {digest.removeprefix("sha256:") for digest in image.blobs} <= hashes

    def new_blob(self, seed: str) -> str:
        """Put a new blob into the registry and pull it; return its digest."""
        assert self._lab.other.name == "other.lab.test"  # started by being asked for
        digest = self._lab.other_storage.add_blob("disk", random_chunks(seed, 2_000_000))
        self.blob(digest)
        return digest

    def blob(self, digest: str) -> int:
        """Pull a blob, see that it is right, and return how often the registry sent it; a HEAD may ask who may read."""
        mark = self._lab.other.log.mark()
        body = self._proxy.client().get(f"https://other.lab.test/v2/disk/blobs/{digest}").body
        assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest
        return mark.count(method="GET")

    def is_stored(self, digest: str) -> bool:
        """Return whether there is a content file."""
        name = digest.removeprefix("sha256:")
        return (self._proxy.cache_directory / "content" / "sha256" / name[:2] / name).exists()

    def wait_until_stored(self, digest: str) -> None:
        """Return when the file of a blob that was pulled is in its place."""
        wait_until(lambda: self.is_stored(digest), "what was pulled is stored")

    def stores_again(self, seed: str) -> None:
        """Pull new blobs until one is stored: the proxy may rest after a fault."""
        digest = self.new_blob(seed)
        wait_until(lambda: self.blob(digest) == 0, "what is pulled is stored again")


@pytest.fixture
def small_cache(start_proxy: StartProxy) -> Iterator[Proxy]:
    """Start a proxy whose cache directory is a disk of 24 MiB."""
    proxy = start_proxy({"CACHE_MAX_SIZE": "1g", "CACHE_MIN_FREE": "0"}, start=False)
    with small_disk(proxy.cache_directory, 24 * MIB):
        yield proxy.start()
        proxy.close()


def test_pulls_go_on_when_the_disk_is_full(
    lab: Lab, small_cache: Proxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """Not a byte is free, neither for content nor for the index; what is stored is still served."""
    pulls = Pulls(lab, small_cache, build_image, tmp_path)
    stored = pulls.new_blob("before")
    pulls.wait_until_stored(stored)
    filler = fill(small_cache.cache_directory)

    pulls.image("full")
    passed = pulls.new_blob("while it is full")
    assert not pulls.is_stored(passed)
    assert pulls.blob(stored) == 0
    assert small_cache.readiness() == 200

    filler.unlink()
    pulls.stores_again("after")
    pulls.image("after")


def test_pulls_go_on_when_the_directory_is_read_only(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """Somebody took the permission away; root without its power over permissions is any user."""
    proxy = start_proxy({"CACHE_MIN_FREE": "0"}, start=False)
    if os.geteuid() == 0:
        proxy.command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *proxy.command]
    proxy.start()
    pulls = Pulls(lab, proxy, build_image, tmp_path)
    stored = pulls.new_blob("before")
    pulls.wait_until_stored(stored)
    directories = [path for path in (proxy.cache_directory, *proxy.cache_directory.rglob("*")) if path.is_dir()]
    for directory in directories:
        directory.chmod(0o500)

    pulls.image("read-only")
    passed = pulls.new_blob("while it is read-only")
    assert not pulls.is_stored(passed)
    assert pulls.blob(stored) == 0
    assert proxy.log.count("the cache does not work, pulls go on without it") == 1

    for directory in directories:
        directory.chmod(0o700)
    pulls.stores_again("after")
    pulls.image("after")


def test_pulls_go_on_when_the_index_is_deleted(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """`rm cache.db*` under the running proxy: it makes a new one from the files, and knows them after a restart."""
    proxy = start_proxy({"CACHE_MIN_FREE": "0"})
    pulls = Pulls(lab, proxy, build_image, tmp_path)
    before = pulls.new_blob("before")
    pulls.wait_until_stored(before)
    for path in proxy.cache_directory.glob("cache.db*"):
        path.unlink()

    pulls.image("deleted")
    meanwhile = pulls.new_blob("while it is deleted")
    pulls.wait_until_stored(meanwhile)
    wait_until(lambda: "was removed or replaced: rebuilding it" in proxy.log, "the index is missed")
    wait_until(lambda: "lost rows of its index" in proxy.log, "the content is found again")

    proxy.restart()
    assert [pulls.blob(digest) for digest in (before, meanwhile)] == [0, 0]
    pulls.image("after")


def test_pulls_go_on_when_the_cache_is_emptied(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """`rm -r cache/*` under the running proxy: the directories are made again, and filled."""
    proxy = start_proxy({"CACHE_MIN_FREE": "0"})
    pulls = Pulls(lab, proxy, build_image, tmp_path)
    pulls.wait_until_stored(pulls.new_blob("before"))
    for path in sorted(proxy.cache_directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    pulls.image("emptied")
    pulls.stores_again("after")


def test_a_spoiled_blob_is_found_removed_and_pulled_again(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """One bit of a blob that was verified a month ago turned: nobody has to ask for it to be found."""
    proxy = start_proxy()
    pulls = Pulls(lab, proxy, build_image, tmp_path)
    good, spoiled = pulls.new_blob("good"), pulls.new_blob("spoiled")
    pulls.wait_until_stored(good)
    pulls.wait_until_stored(spoiled)
    proxy.stop()
    (path,) = proxy.cache_directory.glob(f"content/sha256/*/{spoiled.removeprefix('sha256:')}")
    with path.open("r+b") as content:
        content.seek(1_000_000)
        turned = content.read(1)[0] ^ 1
        content.seek(1_000_000)
        content.write(bytes([turned]))
    with contextlib.closing(sqlite3.connect(proxy.cache_directory / "cache.db")) as index, index:
        index.execute("UPDATE Cache SET store_time = store_time - ?", (31 * 24 * 3600,))

    proxy.start()
    wait_until(lambda: f"stored content {spoiled} is broken" in proxy.log, "it is found")

    assert [pulls.blob(good), pulls.blob(spoiled)] == [0, 1]
    pulls.wait_until_stored(spoiled)
