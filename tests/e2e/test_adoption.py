"""An old cache and an old CA go on working: what a predecessor left is verified, taken in and served."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.image import INDEX, MANIFEST, Image
from lab.lab import CDN, Lab
from lab.old_cache import Predecessor, cache_file, tree_bytes, write_cache_file
from lab.proxy import Proxy
from lab.registry import Registry
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
ANY_MANIFEST = {"Accept": f"{INDEX}, {MANIFEST}"}


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)


def adopted(proxy: Proxy) -> str:
    """Wait for the end of the adoption and return its last line."""
    wait_until(lambda: "old cache: done" in proxy.log, "the old cache is taken in")
    return next(line for line in reversed(proxy.log.splitlines()) if "old cache: done" in line)


def stored(proxy: Proxy) -> set[str]:
    """Return the digests of the content files."""
    return {f"sha256:{path.name}" for path in proxy.cache_directory.glob("content/sha256/*/*")}


@dataclass(frozen=True, slots=True)
class Old:
    """An image that was pulled through a predecessor, and the proxy that is to inherit its cache."""

    registry: Registry
    name: str
    image: Image
    proxy: Proxy
    """Not started."""

    def path(self, digest: str) -> str:
        """Return the path of a manifest or blob."""
        kind = "manifests" if digest in self.image.manifests else "blobs"
        return f"/v2/{self.name}/{kind}/{digest}"

    def url(self, digest: str) -> str:
        """Return the URL of a manifest or blob."""
        return f"https://{self.registry.name}{self.path(digest)}"

    def file(self, digest: str) -> Path:
        """Return the predecessor's file of a manifest or blob."""
        return cache_file(self.proxy.cache_directory, self.path(digest))


@pytest.fixture
def leave_cache(lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path) -> Callable[..., Old]:
    """Return what makes an image, pulls it through a predecessor by tag, and stops that."""

    def leave_one(name: str, settings: dict[str, str] | None = None, registry: Registry | None = None) -> Old:
        registry = registry or lab.other
        image = build_image(layers=3, architectures=("amd64", "arm64"))
        lab.push(image, name, to=lab.other if registry is lab.other else lab.noauth)
        proxy = start_proxy(settings, start=False)
        cdn = lab.cdn.address if registry is lab.redirect else registry.address
        with Predecessor(
            tmp_path / "predecessor", proxy.cache_directory, (registry.name, registry.address), (CDN, cdn)
        ) as old:
            client = Skopeo(tmp_path / "old-client", lab.pki.ca_file)
            for source in (f"{name}:latest", f"{name}@{image.digest}"):
                reference = f"docker://{old.address}/{source}"
                client.run(["copy", "--all", "--src-tls-verify=false", reference, f"dir:{tmp_path / 'before'}"])
        return Old(registry, name, image, proxy)

    return leave_one


class TestOldCache:
    def test_an_image_of_the_old_cache_pulls_with_the_registry_gone(
        self, lab: Lab, leave_cache: Callable[..., Old], tmp_path: Path
    ) -> None:
        """Every manifest and blob is a HIT, a real client gets the whole image, and the old files stay as they were."""
        old = leave_cache("adoption/whole")
        before = tree_bytes(old.proxy.cache_directory)
        old.proxy.start()
        assert "took in 11 contents" in adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests}
        client = old.proxy.client()
        with lab.other.stopped():
            for digest in old.image.blobs:
                answer = client.get(old.url(digest))
                assert (answer.status, answer.header(STATUS)) == (200, "HIT")
                assert answer.body == old.image.read(digest)
            for digest, media_type in old.image.manifests.items():
                answer = client.get(old.url(digest), ANY_MANIFEST)
                assert (answer.status, answer.header(STATUS)) == (200, "HIT")
                assert (answer.header("Content-Type"), answer.body) == (media_type, old.image.read(digest))
            reference = f"{old.registry.name}/{old.name}@{old.image.digest}"
            old.proxy.skopeo().pull(reference, tmp_path / "pulled", all_platforms=True)
        assert hash_files(tmp_path / "pulled") == hash_files(tmp_path / "before")
        assert tree_bytes(old.proxy.cache_directory) == before

    def test_a_pull_by_tag_asks_for_the_tag_and_for_no_blob(
        self, leave_cache: Callable[..., Old], tmp_path: Path
    ) -> None:
        """The tag that the old cache held is not believed: the registry says what it means. The rest is there."""
        old = leave_cache("adoption/tagged")
        assert cache_file(old.proxy.cache_directory, f"/v2/{old.name}/manifests/latest").exists()
        old.proxy.start()
        assert "1 are not named by a digest" in adopted(old.proxy)
        mark = old.registry.log.mark()
        old.proxy.skopeo().pull(f"{old.registry.name}/{old.name}:latest", tmp_path / "pulled", all_platforms=True)
        assert mark.count(path_contains="/blobs/") == 0
        assert mark.count(method="GET", path_contains="/manifests/") == 1
        assert mark.count(method="GET", path_contains="/manifests/latest") == 1
        assert hash_files(tmp_path / "pulled") == hash_files(tmp_path / "before")

    def test_a_truncated_and_a_corrupt_file_are_fetched_anew(
        self, leave_cache: Callable[..., Old], tmp_path: Path
    ) -> None:
        """What does not hash to its digest is not taken in; the pull gets these two from the registry and is right."""
        old = leave_cache("adoption/damaged")
        truncated, corrupt = old.image.layers[:2]
        file = old.file(truncated)
        file.write_bytes(file.read_bytes()[:-1])
        file = old.file(corrupt)
        file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
        old.proxy.start()
        assert "2 do not hold what they are named after" in adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests} - {truncated, corrupt}
        mark = old.registry.log.mark()
        old.proxy.skopeo().pull(f"{old.registry.name}/{old.name}:latest", tmp_path / "pulled", all_platforms=True)
        asked = {request.path.rpartition("/")[2] for request in mark.requests(method="GET", path_contains="/blobs/")}
        assert asked == {truncated, corrupt}
        assert hash_files(tmp_path / "pulled") == hash_files(tmp_path / "before")

    def test_content_that_came_by_a_redirect_is_taken_in(self, lab: Lab, leave_cache: Callable[..., Old]) -> None:
        """The predecessor stored it under the key of the first request, with the storage's head."""
        old = leave_cache("adoption/redirected", registry=lab.redirect)
        old.proxy.start()
        adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests}

    def test_it_happens_once(self, leave_cache: Callable[..., Old]) -> None:
        """A second start does not look at the old cache again: what was evicted since does not come back."""
        old = leave_cache("adoption/once")
        old.proxy.start()
        adopted(old.proxy)
        old.proxy.restart()
        old.proxy.stop()
        assert old.proxy.log.count("old cache: found") == 1

    def test_move_leaves_only_what_was_not_taken_in(self, lab: Lab, leave_cache: Callable[..., Old]) -> None:
        """With OLD_CACHE=move each file goes once its content is stored; tags and damaged files are left alone."""
        old = leave_cache("adoption/moved", {"OLD_CACHE": "move"})
        damaged = old.file(old.image.layers[0])
        damaged.write_bytes(damaged.read_bytes()[:-1])
        tag = cache_file(old.proxy.cache_directory, f"/v2/{old.name}/manifests/latest")
        old.proxy.start()
        adopted(old.proxy)
        assert set(old.proxy.cache_directory.glob("?/??/*")) == {damaged, tag}
        assert set(old.proxy.cache_directory.glob("?")) == {damaged.parents[1], tag.parents[1]}
        with lab.other.stopped():
            answer = old.proxy.client().get(old.url(old.image.layers[1]))
        assert (answer.header(STATUS), answer.body) == ("HIT", old.image.read(old.image.layers[1]))

    def test_ignore_does_not_look(self, leave_cache: Callable[..., Old]) -> None:
        """With OLD_CACHE=ignore the files stay, and nothing is taken in."""
        old = leave_cache("adoption/ignored", {"OLD_CACHE": "ignore"})
        before = tree_bytes(old.proxy.cache_directory)
        old.proxy.start().stop()
        assert "old cache" not in old.proxy.log
        assert stored(old.proxy) == set()
        assert tree_bytes(old.proxy.cache_directory) == before

    def test_a_stop_in_the_middle_is_obeyed_and_the_next_start_goes_on(self, leave_cache: Callable[..., Old]) -> None:
        """A file of many GiB is being hashed: the proxy serves meanwhile, ends in time, leaves no copy behind."""
        old = leave_cache("adoption/stopped")
        huge = write_cache_file(old.proxy.cache_directory, old.path(f"sha256:{'0' * 64}"), b"")
        os.truncate(huge, 4 << 30)  # a hole; used last of all, so it comes first
        old.proxy.start()
        copies = old.proxy.cache_directory / "partial"
        wait_until(lambda: any(path.stat().st_size for path in copies.glob("adoption-*")), "the huge file is copied")
        assert old.proxy.client().get(old.url(old.image.layers[0])).status == 200
        assert old.proxy.stop() == 0
        assert "old cache: done" not in old.proxy.log
        huge.unlink()
        old.proxy.start()
        adopted(old.proxy)
        assert list(copies.glob("adoption-*")) == []
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests}
