"""Two proxies and one bucket, on a real S3 engine: what one has pulled the other need not, and nothing worse happens.

The first proxy and the second one each reach the engine through a relay, which can stall.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import obstore
import pytest

from lab.fixtures import MakeImage
from lab.http_client import Response
from lab.image import MANIFEST, Image, random_chunks
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME
from lab.relay import Relay
from lab.seaweed import SECRET_KEY, Seaweed, names_in
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

REGISTRY = "noauth.lab.test"
STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
MIB = 1024 * 1024
LIMIT_S = 60.0
TAG_TIME_S = 3


@dataclass
class Pair:
    """Two replicas, each with its own way to the engine, and the bucket that they share."""

    lab: Lab
    weed: Seaweed
    first: Proxy
    second: Proxy
    to_first: Relay
    to_second: Relay

    @property
    def names(self) -> set[str]:
        """What is in the bucket."""
        return set(names_in(self.weed.bucket("shared")))

    def wait_for(self, digests: list[str]) -> None:
        """Wait until others can use these contents."""
        wanted = {path("about", digest) for digest in digests}
        wait_until(lambda: wanted <= self.names)

    def wait_until_sharing(self) -> None:
        """Wait until the second replica gets what the first one has pulled: after trouble that takes a moment."""
        deadline_s = time.monotonic() + LIMIT_S
        for number in count():
            blob = Blob(self.lab, f"shared/sharing-{time.monotonic_ns()}-{number}", 100)
            ask(self.first, blob.target)
            self.wait_for([blob.digest])
            if ask(self.second, blob.target).header(STATUS) == "HIT":
                return
            assert time.monotonic() < deadline_s, "the second replica gets nothing from the first one"

    def overwrite(self, name: str, body: bytes) -> None:
        """Put something into the bucket by hand."""
        obstore.put(self.weed.bucket("shared"), name, body)

    def tags(self) -> list[bytes]:
        """Return what the bucket has of tags."""
        bucket = self.weed.bucket("shared")
        return [bytes(obstore.get(bucket, name).bytes()) for name in self.names if name.startswith("cache/tags/")]

    def stored(self, digest: str) -> bytes:
        """Return what the bucket has as a content."""
        return bytes(obstore.get(self.weed.bucket("shared"), path("content", digest)).bytes())


@pytest.fixture(scope="module")
def pair(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Start the engine, two relays and two proxies for this file; each test has content of its own."""
    directory = tmp_path_factory.mktemp("shared")
    with ExitStack() as cleanup:
        weed = cleanup.enter_context(Seaweed(directory / "weed"))
        relays = [cleanup.enter_context(Relay(weed.address)) for _ in range(2)]
        proxies = [lab.proxy(directory / f"proxy-{n}", settings(weed, relays[n])) for n in range(2)]
        for proxy in proxies:
            cleanup.enter_context(proxy)
        yield Pair(lab, weed, proxies[0], proxies[1], relays[0], relays[1])
        assert all(SECRET_KEY not in proxy.log for proxy in proxies)


@pytest.fixture(autouse=True)
def _flowing(pair: Pair) -> Iterator[None]:
    yield
    pair.to_first.stall()
    pair.to_second.stall()


def settings(weed: Seaweed, relay: Relay) -> dict[str, str]:
    return {
        "ENABLE_MANIFEST_CACHE": "true",
        "MANIFEST_CACHE_PRIMARY_REGEX": "moving",
        "MANIFEST_CACHE_PRIMARY_TIME": f"{TAG_TIME_S}s",
        "MANIFEST_CACHE_DEFAULT_TIME": "1h",
        "DOWNLOAD_CONNECTIONS": "1",
        **weed.settings("shared", at=relay.address),
    }


def path(kind: str, digest: str) -> str:
    return f"cache/{kind}/sha256/{digest[7:9]}/{digest[7:]}"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.05)


def pull(pair: Pair, proxy: Proxy, name: str, destination: Path) -> dict[str, str]:
    """Pull by the mirror door, where not even `/v2/` has to be asked for, and return the hashes of what came."""
    skopeo = Skopeo(destination.with_name(f"{destination.name}-home"), pair.lab.pki.ca_file)
    source = f"docker://{proxy.address}/{REGISTRY}/{name}:latest"
    skopeo.run(["copy", "--src-tls-verify=false", source, f"dir:{destination}"])
    return hash_files(destination)


def ask(proxy: Proxy, target: str) -> Response:
    """Ask by the mirror door for something below a repository of the lab's open registry."""
    return proxy.request("GET", f"/v2/{target}?ns={REGISTRY}", {"Accept": MANIFEST})


def contents(image: Image) -> list[str]:
    return [*image.manifests, *image.blobs]


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class Blob:
    """A blob in the storage of the lab's registries."""

    def __init__(self, lab: Lab, name: str, size_bytes: int) -> None:
        assert lab.noauth
        self.body = b"".join(random_chunks(f"shared {name}", size_bytes))
        self.digest = lab.storage.add_blob(name, [self.body])
        self.target = f"{name}/blobs/{self.digest}"


class TestSharing:
    def test_what_one_has_pulled_the_other_pulls_without_the_registry(
        self, lab: Lab, pair: Pair, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The second has never seen the image and asks its registry for nothing at all; the bytes are the same."""
        image = build_image(layer_bytes=3_000_000)
        lab.push(image, "shared/first")
        by_first = pull(pair, pair.first, "shared/first", tmp_path / "a")
        pair.wait_for(contents(image))
        log = lab.noauth.log.mark()
        by_second = pull(pair, pair.second, "shared/first", tmp_path / "b")

        assert by_first == by_second
        assert log.requests() == []
        assert all(sha256(pair.stored(digest)) == digest for digest in contents(image))

    def test_a_tag_that_both_want_is_asked_for_once(self, lab: Lab, pair: Pair, build_image: MakeImage) -> None:
        """Two replicas that know nothing of a tag ask for it at the same moment: one asks, the other waits for it.

        Not forever: on a machine that is busy with other things it may ask, too, so there are three tries.
        """
        asked: list[int] = []
        for number in range(3):
            image = build_image(str(number))
            lab.push(image, f"shared/at-once-{number}")
            log = lab.noauth.log.mark()
            target = f"shared/at-once-{number}/manifests/latest"
            with ThreadPoolExecutor(2) as threads:
                answers = list(threads.map(lambda proxy: ask(proxy, target), (pair.first, pair.second)))  # noqa: B023
            assert [sha256(answer.body) for answer in answers] == [image.digest] * 2
            asked.append(len(log.requests()))
            if asked[-1] == 1:
                break

        assert asked[-1] == 1, asked

    def test_who_wants_the_registrys_word_costs_a_head_only(self, lab: Lab, pair: Pair, build_image: MakeImage) -> None:
        """Where every use asks the registry, what another replica has stored saves the GET that counts."""
        image = build_image()
        lab.push(image, "shared/insists")
        assert ask(pair.first, "shared/insists/manifests/latest").status == 200
        pair.wait_for([image.digest])
        wait_until(lambda: sum(b"checked_at_s" in text for text in pair.tags()) == len(pair.tags()))
        log = lab.noauth.log.mark()
        target = f"/v2/shared/insists/manifests/latest?ns={REGISTRY}"
        answer = pair.second.request("GET", target, {"Accept": MANIFEST, "Cache-Control": "no-cache"})

        assert (sha256(answer.body), answer.header(STATUS)) == (image.digest, "REVALIDATED")
        assert [request.method for request in log.requests()] == ["HEAD"]

    def test_what_only_a_login_may_read_needs_it_at_the_other_replica(
        self, lab: Lab, pair: Pair, origin: Origin
    ) -> None:
        """The bucket has it, but only the login gets it, by a HEAD of its own; no other registry can claim it."""
        blob = Blob(lab, "shared/private", 200_000)
        url = f"https://{lab.basic.name}/v2/{blob.target}"
        login = {"Authorization": "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()}
        assert pair.first.client().get(url, login).body == blob.body
        pair.wait_for([blob.digest])
        origin.serve(f"/v2/thief/x/blobs/{blob.digest}", Reply(bytes(200_000)), Reply(b"", 403))
        log = lab.basic.log.mark()
        client = pair.second.client()

        assert client.get(url).status == 401
        assert client.head(url).status == 401
        assert client.get(f"https://{origin.name}/v2/thief/x/blobs/{blob.digest}").status == 403
        assert [request.method for request in origin.log.requests(path_contains=blob.digest)] == ["HEAD", "GET"]
        assert client.get(url, login).body == blob.body
        assert log.requests(method="GET", status=200) == []

    def test_what_nobody_says_where_it_is_from_is_not_given_to_who_claims_it(
        self, lab: Lab, pair: Pair, origin: Origin
    ) -> None:
        """The records of its holders are gone from the bucket: a registry that says it has it must send it."""
        blob = Blob(lab, "shared/orphan", 200_000)
        assert ask(pair.first, blob.target).body == blob.body
        pair.wait_for([blob.digest])
        holders = [name for name in pair.names if name.startswith(f"cache/holders/sha256/{blob.digest[7:]}/")]
        assert len(holders) == 1
        obstore.delete(pair.weed.bucket("shared"), holders)
        target = f"/v2/thief/y/blobs/{blob.digest}"
        origin.serve(target, Reply(bytes(200_000)), Reply(b"", 403))

        assert pair.second.client().get(f"https://{origin.name}{target}").status == 403


class TestPoison:
    def test_wrong_bytes_in_the_bucket_reach_nobody_and_are_replaced(self, lab: Lab, pair: Pair) -> None:
        """From the first wrong MiB on the registry is asked; the client gets the right bytes in one pull."""
        blob = Blob(lab, "shared/poison", 3 * MIB + 5)
        assert ask(pair.first, blob.target).body == blob.body
        pair.wait_for([blob.digest])
        wrong = bytearray(blob.body)
        wrong[MIB + 17] ^= 0xFF
        pair.overwrite(path("content", blob.digest), bytes(wrong))
        log = lab.noauth.log.mark()

        assert ask(pair.second, blob.target).body == blob.body
        assert [request.range for request in log.requests()] == [f"bytes={MIB}-{len(blob.body) - 1}"]
        assert f"something else as {blob.digest}" in pair.second.log
        wait_until(lambda: path("content", blob.digest) in pair.names and pair.stored(blob.digest) == blob.body)

    def test_a_record_that_was_not_sealed_is_not_believed(self, lab: Lab, pair: Pair, build_image: MakeImage) -> None:
        """Who can write to the bucket cannot say what a tag means, nor copy what was said of another one."""
        good, other = build_image("good"), build_image("other")
        lab.push(good, "shared/good")
        lab.push(other, "shared/other")
        before = pair.names
        assert ask(pair.first, "shared/good/manifests/latest").status == 200
        wait_until(lambda: any("/tags/" in name for name in pair.names - before))
        (of_good,) = (name for name in pair.names - before if "/tags/" in name)
        before = pair.names
        assert ask(pair.first, "shared/other/manifests/latest").status == 200
        pair.wait_for([other.digest])
        wait_until(lambda: any("/tags/" in name for name in pair.names - before))
        (of_other,) = (name for name in pair.names - before if "/tags/" in name)
        bucket = pair.weed.bucket("shared")
        wait_until(lambda: b"checked_at_s" in bytes(obstore.get(bucket, of_other).bytes()))
        pair.overwrite(of_good, bytes(obstore.get(bucket, of_other).bytes()))
        log = lab.noauth.log.mark()

        assert sha256(ask(pair.second, "shared/good/manifests/latest").body) == good.digest
        assert log.count(path_contains="/manifests/latest") >= 1
        assert "not believed" in pair.second.log


class TestTrouble:
    def test_a_bucket_that_hangs_costs_a_moment_once(self, lab: Lab, pair: Pair) -> None:
        """Pulls go on from the registry, and it is said in one line; the bucket is used again when it answers."""
        blobs = [Blob(lab, f"shared/hangs-{number}", 100_000) for number in range(3)]
        said = pair.second.log.count("gives no answer")
        pair.to_second.stall(down_bytes=0)
        for blob in blobs:
            assert ask(pair.second, blob.target).body == blob.body
        assert pair.second.log.count("gives no answer") == said + 1
        pair.to_second.stall()

        pair.wait_for([blob.digest for blob in blobs])
        pair.wait_until_sharing()
        log = lab.noauth.log.mark()
        assert ask(pair.first, blobs[0].target).body == blobs[0].body
        assert log.requests() == []

    def test_a_download_that_stalls_is_finished_by_the_registry(self, lab: Lab, pair: Pair) -> None:
        """What has come is kept; the registry is asked for the rest."""
        blob = Blob(lab, "shared/stalls", 8 * MIB)
        assert ask(pair.first, blob.target).body == blob.body
        pair.wait_for([blob.digest])
        pair.wait_until_sharing()
        log = lab.noauth.log.mark()
        pair.to_second.stall(down_bytes=5 * MIB)

        assert ask(pair.second, blob.target).body == blob.body
        (request,) = log.requests()
        start = int(request.range.removeprefix("bytes=").partition("-")[0])
        assert 0 < start < len(blob.body)
        assert start % MIB == 0

    def test_a_process_that_dies_in_the_middle_of_writing_goes_on_afterwards(self, lab: Lab, pair: Pair) -> None:
        """Of half a content nothing is seen; the next start writes it."""
        blob = Blob(lab, "shared/half", 24 * MIB)
        pair.to_first.stall(up_bytes=10 * MIB)
        assert ask(pair.first, blob.target).body == blob.body
        wait_until(lambda: pair.to_first.sent_up_bytes > 5 * MIB)
        pair.first.kill()
        assert not {path("content", blob.digest), path("about", blob.digest)} & pair.names
        pair.to_first.stall()
        pair.first.start()

        pair.wait_for([blob.digest])
        pair.wait_until_sharing()
        log = lab.noauth.log.mark()
        assert ask(pair.second, blob.target).body == blob.body
        assert log.requests() == []

    def test_pulls_go_on_while_the_engine_is_gone(
        self, lab: Lab, pair: Pair, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """An image is pulled without it, and is in the bucket when it is back, with what its tag means."""
        image = build_image()
        lab.push(image, "shared/gone")
        tags = len(pair.tags())
        pair.weed.kill()
        by_first = pull(pair, pair.first, "shared/gone", tmp_path / "a")
        pair.weed.start()
        pair.wait_for(contents(image))
        wait_until(lambda: len(pair.tags()) > tags)
        pair.wait_until_sharing()
        log = lab.noauth.log.mark()

        assert pull(pair, pair.second, "shared/gone", tmp_path / "b") == by_first
        assert log.requests() == []

    @pytest.mark.slow
    def test_it_ends_in_time_with_a_bucket_that_hangs(self, lab: Lab, pair: Pair) -> None:
        """TERM does not wait for what is to be written."""
        blob = Blob(lab, "shared/ends", 24 * MIB)
        pair.to_first.stall(up_bytes=6 * MIB)
        assert ask(pair.first, blob.target).body == blob.body
        wait_until(lambda: pair.to_first.sent_up_bytes > 3 * MIB)

        assert pair.first.stop() == 0
        pair.to_first.stall()
        pair.first.start()
        pair.wait_for([blob.digest])


@pytest.mark.slow
def test_a_tag_is_revalidated_by_one_replica_in_its_time(lab: Lab, pair: Pair, build_image: MakeImage) -> None:
    """Both are asked all the time: what the registry sees is one question for each of the tier's times."""
    image = build_image()
    lab.push(image, "shared/moving", "moving")
    target = "shared/moving/manifests/moving"
    ask(pair.first, target)
    log = lab.noauth.log.mark()
    began_s = time.monotonic()
    while time.monotonic() < began_s + 8 * TAG_TIME_S:
        assert sha256(ask(pair.first, target).body) == image.digest
        assert sha256(ask(pair.second, target).body) == image.digest
        time.sleep(0.05)

    assert 1 <= log.count(path_contains="/manifests/moving") <= (time.monotonic() - began_s) / TAG_TIME_S + 1


def test_a_bucket_that_is_not_there_yet_is_made(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """By an engine that does so; what is pulled meanwhile is in it then."""
    blob = Blob(lab, "shared/new-bucket", 100_000)
    own = settings(pair.weed, pair.to_first)
    own["STORE_URL"] = own["STORE_URL"].replace("s3://shared/", "s3://made-by-the-proxy/")
    with lab.proxy(tmp_path / "proxy", own) as proxy:
        assert ask(proxy, blob.target).body == blob.body
        made = pair.weed.bucket("made-by-the-proxy")

        def is_there() -> bool:
            with suppress(FileNotFoundError):
                return path("about", blob.digest) in names_in(made)
            return False

        wait_until(is_there)
