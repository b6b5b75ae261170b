"""The cap holds at all times, the least recently used goes first, and nobody who reads notices."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
BLOCK_BYTES = 512
OUTSIDE_BYTES = 4 * MIB
"""What the store says that it may take besides: logs of its index, directories, sidecars."""


def add_blob(lab: Lab, seed: str, size_bytes: int) -> str:
    """Put a blob into the registry other.lab.test, which is running then, and return its digest."""
    assert lab.other.name == "other.lab.test"
    return lab.other_storage.add_blob("sized", random_chunks(seed, size_bytes))


def pull(lab: Lab, proxy: Proxy, digest: str) -> str:
    """Pull a blob and return the digest of what came."""
    body = proxy.client().get(f"https://{lab.other.name}/v2/sized/blobs/{digest}").body
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def stored(proxy: Proxy) -> set[str]:
    """Return the digests of the content files."""
    return {f"sha256:{path.name}" for path in proxy.cache_directory.glob("content/sha256/*/*")}


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)


def settled(proxy: Proxy, *digests: str) -> None:
    wait_until(lambda: set(digests) <= stored(proxy), "what was pulled is stored")


class DiskUse:
    """Samples what a directory takes on the disk, in a thread.

    A file that goes while another comes must not count as both: only what two looks in a row find is added up.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.highest_counted_bytes = self.highest_bytes = self.samples = 0

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample while the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _look(self) -> dict[tuple[int, bool], int]:
        """Return bytes by inode, and whether the cap counts it: content, unfinished content and the index."""
        found = {}
        for path in self._directory.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                area = path.relative_to(self._directory).parts[0]
                is_counted = path.suffix != ".json" and area in {"content", "partial", "cache.db"} and path.is_file()
                found[status.st_ino, is_counted] = status.st_blocks * BLOCK_BYTES
        return found

    def _sample(self) -> None:
        before = self._look()
        while not self._stop.is_set():
            now = self._look()
            both = {key: min(before[key], now[key]) for key in before.keys() & now.keys()}
            counted_bytes = sum(size for (_, is_counted), size in both.items() if is_counted)
            self.highest_counted_bytes = max(self.highest_counted_bytes, counted_bytes)
            self.highest_bytes = max(self.highest_bytes, sum(both.values()))
            self.samples += 1
            before = now


class TestCap:
    def test_holds_at_all_times_while_many_blobs_are_pulled(self, lab: Lab, start_proxy: StartProxy) -> None:
        """Pulls of five times the cap, four at a time: every client has its bytes and the disk use stays below."""
        cap_bytes = 12 * MIB
        proxy = start_proxy({"CACHE_MAX_SIZE": "12m"})
        digests = [add_blob(lab, f"many {number}", 3_000_000 + 10_000 * number) for number in range(20)]
        use = DiskUse(proxy.cache_directory)
        with use.sampled(), ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda digest: pull(lab, proxy, digest), digests)) == digests
        assert use.samples > 10
        assert 6_000_000 < use.highest_counted_bytes <= cap_bytes
        assert use.highest_bytes <= cap_bytes + OUTSIDE_BYTES

    def test_what_was_read_lately_stays(self, lab: Lab, start_proxy: StartProxy) -> None:
        """Room is made by the content that was not read for the longest time."""
        proxy = start_proxy({"CACHE_MAX_SIZE": "10m"})
        first, second, third, fourth = (add_blob(lab, f"lru {number}", 3_000_000) for number in range(4))
        for digest in (first, second, third):
            pull(lab, proxy, digest)
            settled(proxy, digest)
        mark = lab.other.log.mark()
        assert pull(lab, proxy, first) == first
        assert mark.count() == 0
        pull(lab, proxy, fourth)
        settled(proxy, fourth)
        assert stored(proxy) == {first, third, fourth}

    def test_a_smaller_cap_is_kept_after_a_restart(self, lab: Lab, start_proxy: StartProxy) -> None:
        """A cache that is larger than a new CACHE_MAX_SIZE shrinks, and what was read last is still there."""
        proxy = start_proxy({"CACHE_MAX_SIZE": "20m"})
        digests = [add_blob(lab, f"shrink {number}", 3_000_000) for number in range(4)]
        for digest in digests:
            pull(lab, proxy, digest)
            settled(proxy, digest)
        proxy.stop()
        smaller = lab.proxy(proxy.cache_directory.parent, {"CACHE_MAX_SIZE": "8m"})
        with smaller:
            wait_until(lambda: len(stored(smaller)) == 2, "the cache shrinks")
            assert stored(smaller) == set(digests[2:])
            assert pull(lab, smaller, digests[0]) == digests[0]


class TestTooLarge:
    def test_a_blob_larger_than_the_cap_reaches_the_client_uncached(self, lab: Lab, start_proxy: StartProxy) -> None:
        """It passes through, is not stored, and makes nothing else go."""
        proxy = start_proxy({"CACHE_MAX_SIZE": "6m"})
        small, large = add_blob(lab, "small", 2_000_000), add_blob(lab, "large", 20_000_000)
        pull(lab, proxy, small)
        settled(proxy, small)
        use = DiskUse(proxy.cache_directory)
        with use.sampled():
            assert [pull(lab, proxy, large) for _ in range(2)] == [large, large]
        assert stored(proxy) == {small}
        assert use.highest_counted_bytes <= 6 * MIB
        assert '"upstream_cache_status":"BYPASS"' in proxy.log
        assert "does not work" not in proxy.log

    def test_a_blob_of_unknown_size_larger_than_the_cap_reaches_the_client(
        self, start_proxy: StartProxy, origin: Origin
    ) -> None:
        """Without a Content-Length the cap is met on the way, and the client has its bytes all the same."""
        body = b"".join(random_chunks("unknown", 12_000_000))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        origin.serve(f"/v2/sized/blobs/{digest}", Reply(body, chunked=True))
        proxy = start_proxy({"CACHE_MAX_SIZE": "6m"})
        use = DiskUse(proxy.cache_directory)
        with use.sampled():
            assert proxy.client().get(f"https://origin.lab.test/v2/sized/blobs/{digest}").body == body
        assert use.highest_counted_bytes <= 6 * MIB
        assert stored(proxy) == set()

    def test_an_image_larger_than_the_cap_is_pulled_through_a_redirect(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Skopeo follows the registry's redirect itself when the layer is not for the cache."""
        image = build_image(layers=2, layer_bytes=7_000_000)
        lab.push(image, "library/larger")
        proxy = start_proxy({"CACHE_MAX_SIZE": "6m"})
        # the registry is intercepted, its CDN is tunnelled: a client knows the authorities of both
        both = tmp_path / "both.pem"
        both.write_bytes(proxy.ca_file.read_bytes() + lab.pki.ca_file.read_bytes())
        skopeo = Skopeo(tmp_path / "skopeo", both, proxy.address)
        skopeo.pull(f"{lab.redirect.name}/library/larger:latest", tmp_path / "pulled")
        hashes = set(hash_files(tmp_path / "pulled").values())
        assert {digest.removeprefix("sha256:") for digest in image.blobs} <= hashes

    def test_two_downloads_that_do_not_fit_together_both_arrive(self, start_proxy: StartProxy, origin: Origin) -> None:
        """While one download fills the cache, another one passes it by, and neither evicts the other's file."""
        gate = Gate()
        bodies = [b"".join(random_chunks(f"together {number}", 4_000_000)) for number in range(2)]
        paths = [f"/v2/sized/blobs/sha256:{hashlib.sha256(body).hexdigest()}" for body in bodies]
        origin.serve(paths[0], Reply(bodies[0], hold_after_bytes=1_000_000, gate=gate))
        origin.serve(paths[1], Reply(bodies[1]))
        proxy = start_proxy({"CACHE_MAX_SIZE": "6m"})
        with proxy.client().stream("GET", f"https://origin.lab.test{paths[0]}") as response:
            first = response.read(1)
            assert proxy.client().get(f"https://origin.lab.test{paths[1]}").body == bodies[1]
            gate.open()
            assert first + response.read() == bodies[0]


class TestReaders:
    @pytest.mark.parametrize("state", ["miss", "hit"])
    def test_a_slow_reader_of_an_evicted_blob_gets_all_of_it(
        self, lab: Lab, start_proxy: StartProxy, state: str
    ) -> None:
        """A file that is evicted while a client reads it is whole for that client."""
        proxy = start_proxy({"CACHE_MAX_SIZE": "24m"})
        read = add_blob(lab, f"read {state}", 15_000_000)
        if state == "hit":
            pull(lab, proxy, read)
        with proxy.client().stream("GET", f"https://{lab.other.name}/v2/sized/blobs/{read}") as response:
            hashed = hashlib.sha256(response.read(1))
            settled(proxy, read)
            other = add_blob(lab, f"pushes out {state}", 14_000_000)
            assert pull(lab, proxy, other) == other
            wait_until(lambda: read not in stored(proxy), "it is evicted")
            hashed.update(response.read())
        assert f"sha256:{hashed.hexdigest()}" == read
        assert pull(lab, proxy, read) == read


class TestInactive:
    def test_what_nobody_reads_is_removed_and_what_is_read_stays(self, lab: Lab, start_proxy: StartProxy) -> None:
        """After CACHE_INACTIVE without a read a blob goes; one that is read all the time is never downloaded again."""
        proxy = start_proxy({"CACHE_INACTIVE": "3s"})
        unused, used = add_blob(lab, "unused", 100_000), add_blob(lab, "used", 100_000)
        for digest in (unused, used):
            pull(lab, proxy, digest)
            settled(proxy, digest)
        mark = lab.other.log.mark()

        def unused_is_gone() -> bool:
            assert pull(lab, proxy, used) == used
            return unused not in stored(proxy)

        wait_until(unused_is_gone, "the unused blob is removed", limit_s=30)
        assert used in stored(proxy)
        assert mark.count() == 0
        assert pull(lab, proxy, unused) == unused
        assert mark.count(path_contains=unused) == 1

    def test_what_was_not_read_while_the_proxy_was_off_is_removed_at_the_start(
        self, lab: Lab, start_proxy: StartProxy
    ) -> None:
        """The time without a read goes on over a restart."""
        proxy = start_proxy({"CACHE_INACTIVE": "1s"})
        digest = add_blob(lab, "over a restart", 100_000)
        pull(lab, proxy, digest)
        settled(proxy, digest)
        proxy.stop()
        time.sleep(1.1)  # how long it is not used, not a wait for something
        proxy.start()
        wait_until(lambda: digest not in stored(proxy), "it is removed", limit_s=5)
