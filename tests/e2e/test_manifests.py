"""Tags and manifests: whose content a client gets, when the registry is asked, and what is never believed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.http_client import Client, Response
from lab.image import INDEX, MANIFEST, Image
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CACHE_STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
CACHE_TYPE = "X-Docker-Registry-Proxy-Cache-Type"

TIERS = {
    "ENABLE_MANIFEST_CACHE": "true",
    "MANIFEST_CACHE_PRIMARY_REGEX": "moving",
    "MANIFEST_CACHE_PRIMARY_TIME": "0s",
    "MANIFEST_CACHE_SECONDARY_REGEX": "release",
    "MANIFEST_CACHE_SECONDARY_TIME": "60d",
    "MANIFEST_CACHE_DEFAULT_TIME": "1h",
    "NOT_FOUND_TIME": "0",
}


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def served(content: bytes, media_type: str = MANIFEST, **fields: str) -> Reply:
    """Return an honest registry's reply to a request for a manifest."""
    return Reply(content, headers={"Content-Type": media_type, "Docker-Content-Digest": sha256(content), **fields})


def tag_url(registry: str, name: str, tag: str = "latest") -> str:
    return f"https://{registry}/v2/{name}/manifests/{tag}"


@pytest.fixture(scope="module")
def tiered(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield one proxy with TIERS; each test has a repository of its own."""
    with lab.proxy(tmp_path_factory.mktemp("tiered"), TIERS) as running:
        yield running


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """Return the name of a repository that no other test uses."""
    return f"manifests/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


class TestWhoseContent:
    def test_the_same_name_and_tag_in_two_registries_are_two_images(
        self, lab: Lab, tiered: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Each client gets its registry's own image, also when both tags are fresh in the cache."""
        ours, theirs = build_image("ours"), build_image("theirs")
        lab.push(ours, "manifests/twins")
        lab.push(theirs, "manifests/twins", to=lab.other)
        for turn in ("cold", "warm"):
            for registry, image in ((lab.noauth, ours), (lab.other, theirs)):
                folder = tmp_path / f"{turn}-{registry.name}"
                tiered.skopeo(folder.name).pull(f"{registry.name}/manifests/twins:latest", folder)
                pulled = set(hash_files(folder).values())
                assert {digest.removeprefix("sha256:") for digest in (image.digest, *image.blobs)} <= pulled

    def test_each_client_gets_the_media_type_that_it_accepts(
        self, lab: Lab, tiered: Proxy, build_image: MakeImage
    ) -> None:
        """One tag, three clients with other Accept fields: each gets what the registry has for it, cold and cached."""
        lab.push(build_image(architectures=("amd64", "arm64")), "manifests/docker", manifest_format="v2s2")
        url = tag_url(lab.noauth.name, "manifests/docker")
        accepts = [f"{DOCKER_LIST}, {DOCKER_MANIFEST}", DOCKER_MANIFEST, f"{INDEX}, {DOCKER_LIST}"]
        direct = [lab.client.get(url, {"Accept": accept}) for accept in accepts]
        assert [answer.header("Content-Type") for answer in direct] == [DOCKER_LIST, DOCKER_MANIFEST, DOCKER_LIST]
        client = tiered.client()
        cold = [client.get(url, {"Accept": accept}) for accept in accepts]
        log = lab.noauth.log.mark()
        cached = [client.get(url, {"Accept": accept}) for accept in accepts]
        for answers in (cold, cached):
            assert [answer.body for answer in answers] == [answer.body for answer in direct]
            for field in ("Content-Type", "Docker-Content-Digest"):
                assert [answer.header(field) for answer in answers] == [answer.header(field) for answer in direct]
        assert log.count() == 0

    def test_a_docker_client_is_not_given_what_an_oci_client_got(
        self, lab: Lab, tiered: Proxy, build_image: MakeImage
    ) -> None:
        """A registry that has the tag only as OCI refuses a Docker client, and the cache does not overrule it."""
        image = build_image()
        lab.push(image, "manifests/oci")
        url = tag_url(lab.noauth.name, "manifests/oci")
        client = tiered.client()
        assert client.get(url, {"Accept": MANIFEST}).body == image.read(image.digest)
        refused = client.get(url, {"Accept": DOCKER_MANIFEST})
        expected = lab.client.get(url, {"Accept": DOCKER_MANIFEST})
        assert (refused.status, json.loads(refused.body)) == (expected.status, json.loads(expected.body))
        assert refused.status == 404
        assert client.get(url, {"Accept": MANIFEST}).status == 200

    def test_a_digest_is_not_served_in_a_type_that_the_client_does_not_accept(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage
    ) -> None:
        """Stored content of another media type than the client's is left to the registry to answer."""
        image = build_image()
        lab.push(image, "manifests/by-digest")
        url = tag_url(lab.noauth.name, "manifests/by-digest", image.digest)
        client = proxy.client()
        assert client.get(url, {"Accept": MANIFEST}).header(CACHE_STATUS) == "MISS"
        assert client.get(url, {"Accept": MANIFEST}).header(CACHE_STATUS) == "HIT"
        mark = lab.noauth.log.mark()
        client.get(url, {"Accept": DOCKER_MANIFEST})
        assert mark.count(method="GET", path_contains="/manifests/") == 1

    def test_skopeo_pulls_an_image_of_either_kind(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """An image pushed as OCI and as Docker v2s2 comes through with the manifest that its tag has."""
        image = build_image()
        digests = {
            "oci": lab.push(image, "manifests/kind", "oci"),
            "v2s2": lab.push(image, "manifests/kind", "v2s2", manifest_format="v2s2"),
        }
        for tag, digest in digests.items():
            proxy.skopeo(tag).pull(f"{lab.noauth.name}/manifests/kind:{tag}", tmp_path / tag)
            assert sha256((tmp_path / tag / "manifest.json").read_bytes()) == digest
        assert digests["oci"] != digests["v2s2"]


class TestTiers:
    OLD, NEW = b'{"schemaVersion": 2, "old": true}', b'{"schemaVersion": 2, "new": true}'

    @pytest.fixture
    def client(self, tiered: Proxy) -> Client:
        """Return a client of a proxy with these tiers."""
        return tiered.client()

    @pytest.mark.parametrize(
        ("tag", "cache_type"),
        [
            pytest.param("latest", "manifest-default", id="default"),
            pytest.param("release-1", "manifest-secondary", id="secondary"),
        ],
    )
    def test_a_fresh_tag_sends_nothing_upstream(
        self, client: Client, repository: str, origin: Origin, tag: str, cache_type: str
    ) -> None:
        """GET and HEAD of a tag whose time is not up are answered by the proxy alone."""
        origin.serve(f"/v2/{repository}/manifests/{tag}", served(self.OLD))
        url = tag_url(origin.name, repository, tag)
        first = client.get(url, {"Accept": MANIFEST})
        assert (first.status, first.header(CACHE_STATUS), first.header(CACHE_TYPE)) == (200, "MISS", cache_type)
        mark = origin.log.mark()
        again, head = client.get(url, {"Accept": MANIFEST}), client.head(url, {"Accept": MANIFEST})
        assert (again.body, again.header(CACHE_STATUS), head.header(CACHE_STATUS)) == (self.OLD, "HIT", "HIT")
        assert head.header("Content-Length") == str(len(self.OLD))
        assert head.header("Docker-Content-Digest") == sha256(self.OLD)
        assert mark.requests() == []

    def test_a_tag_whose_time_is_up_costs_one_head(self, client: Client, repository: str, origin: Origin) -> None:
        """An unchanged tag is confirmed by exactly one HEAD, never fetched again."""
        origin.serve(f"/v2/{repository}/manifests/moving", served(self.OLD))
        url = tag_url(origin.name, repository, "moving")
        client.get(url, {"Accept": MANIFEST})
        for _ in range(2):
            mark = origin.log.mark()
            again = client.get(url, {"Accept": MANIFEST})
            assert (again.body, again.header(CACHE_STATUS)) == (self.OLD, "REVALIDATED")
            assert [request.method for request in mark.requests()] == ["HEAD"]

    def test_the_time_of_a_tag_runs_out(self, start_proxy: StartProxy, origin: Origin) -> None:
        """A record that was fresh is revalidated once it is older than its tier's time, also after a restart."""
        proxy = start_proxy(TIERS)
        origin.serve("/v2/some/image/manifests/latest", served(self.OLD))
        url = tag_url(origin.name, "some/image")
        proxy.client().get(url, {"Accept": MANIFEST})
        mark = origin.log.mark()
        proxy.restart()
        assert proxy.client().get(url, {"Accept": MANIFEST}).header(CACHE_STATUS) == "HIT"
        proxy.settings["MANIFEST_CACHE_DEFAULT_TIME"] = "1ms"
        proxy.restart()
        assert proxy.client().get(url, {"Accept": MANIFEST}).header(CACHE_STATUS) == "REVALIDATED"
        assert [request.method for request in mark.requests()] == ["HEAD"]

    def test_a_tag_that_moved_gives_its_new_content(self, client: Client, repository: str, origin: Origin) -> None:
        """HEAD tells of another digest, one GET brings the content, and the next revalidation is a HEAD again."""
        path, url = f"/v2/{repository}/manifests/moving", tag_url(origin.name, repository, "moving")
        origin.serve(path, served(self.OLD))
        client.get(url, {"Accept": MANIFEST})
        origin.serve(path, served(self.NEW))
        mark = origin.log.mark()
        moved = client.get(url, {"Accept": MANIFEST})
        assert (moved.body, moved.header(CACHE_STATUS)) == (self.NEW, "EXPIRED")
        assert [request.method for request in mark.requests()] == ["HEAD", "GET"]
        assert client.get(url, {"Accept": MANIFEST}).header(CACHE_STATUS) == "REVALIDATED"

    def test_head_stays_head(self, client: Client, repository: str, origin: Origin) -> None:
        """A client's HEAD is never made a GET, cold, stale or moved, and its answer describes the content."""
        path, url = f"/v2/{repository}/manifests/moving", tag_url(origin.name, repository, "moving")
        origin.serve(path, served(self.OLD), served(self.OLD), served(self.NEW))
        for content in (self.OLD, self.OLD, self.NEW):
            answer = client.head(url, {"Accept": MANIFEST})
            assert (answer.status, answer.body) == (200, b"")
            assert answer.header("Docker-Content-Digest") == sha256(content)
            assert answer.header("Content-Length") == str(len(content))
            assert answer.header("Content-Type") == MANIFEST
        assert {request.method for request in origin.log.requests()} == {"HEAD"}
        assert client.get(url, {"Accept": MANIFEST}).body == self.NEW

    def test_no_cache_revalidates_a_fresh_tag(self, client: Client, repository: str, origin: Origin) -> None:
        """Cache-Control: no-cache costs a HEAD, and a GET only because the tag has moved."""
        path, url = f"/v2/{repository}/manifests/latest", tag_url(origin.name, repository)
        asking = {"Accept": MANIFEST, "Cache-Control": "max-age=0, No-Cache"}
        origin.serve(path, served(self.OLD))
        client.get(url, {"Accept": MANIFEST})
        mark = origin.log.mark()
        assert client.get(url, asking).header(CACHE_STATUS) == "REVALIDATED"
        origin.serve(path, served(self.NEW))
        assert client.get(url, {"Accept": MANIFEST}).body == self.OLD
        assert client.get(url, asking).body == self.NEW
        assert client.get(url, {"Accept": MANIFEST}).body == self.NEW
        assert [request.method for request in mark.requests()] == ["HEAD", "HEAD", "GET"]

    def test_without_tag_caching_each_pull_costs_one_head(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """By default a tag is never fresh: each pull with a real client sends one HEAD and nothing else."""
        reference = f"{lab.other.name}/manifests/uncached:v1.2.3"
        lab.push(build_image(), "manifests/uncached", "v1.2.3", to=lab.other)
        proxy.skopeo("cold").pull(reference, tmp_path / "cold")
        for turn in ("second", "third"):
            mark = lab.other.log.mark()
            proxy.skopeo(turn).pull(reference, tmp_path / turn)
            asked = [(request.method, request.path) for request in mark.requests(path_contains="/v2/manifests")]
            assert asked == [("HEAD", "/v2/manifests/uncached/manifests/v1.2.3")]
            assert hash_files(tmp_path / turn) == hash_files(tmp_path / "cold")


class TestWhatIsNotBelieved:
    RIGHT = b'{"schemaVersion": 2, "right": true}'
    OTHER = b'{"schemaVersion": 2, "other": true}'
    LIE = sha256(OTHER)

    def get(self, proxy: Proxy, repository: str, origin: Origin, reference: str = "latest") -> Response:
        """Return the proxy's answer for a reference of the scripted origin."""
        return proxy.client().get(tag_url(origin.name, repository, reference), {"Accept": MANIFEST})

    @pytest.mark.parametrize("reference", ["latest", LIE], ids=["by tag", "by digest"])
    def test_a_manifest_that_is_not_what_its_digest_says_is_neither_served_nor_stored(
        self, tiered: Proxy, repository: str, origin: Origin, reference: str
    ) -> None:
        """The client gets 502 with the reason, nothing of the body is kept, and the next honest answer is served."""
        path = f"/v2/{repository}/manifests/{reference}"
        wrong = b'{"schemaVersion": 2, "wrong": true}'
        fields = {"Content-Type": MANIFEST, "Docker-Content-Digest": self.LIE}
        origin.serve(path, Reply(wrong, headers=fields))
        answer = self.get(tiered, repository, origin, reference)
        assert answer.status == 502
        assert self.LIE in json.loads(answer.body)["errors"][0]["message"]
        assert not {sha256(wrong), self.LIE} & {
            f"sha256:{found}" for found in hash_files(tiered.cache_directory).values()
        }
        right = self.OTHER if reference == self.LIE else self.RIGHT
        origin.serve(path, served(right))
        assert self.get(tiered, repository, origin, reference).body == right

    def test_a_tag_that_moved_to_a_lie_does_not_replace_the_stored_one(
        self, tiered: Proxy, repository: str, origin: Origin
    ) -> None:
        """A wrong body after a HEAD that told of a new digest is 502, and the tag is right again afterwards."""
        path = f"/v2/{repository}/manifests/moving"
        origin.serve(path, served(self.RIGHT))
        assert self.get(tiered, repository, origin, "moving").status == 200
        origin.serve(path, Reply(b"{}", headers={"Content-Type": MANIFEST, "Docker-Content-Digest": self.LIE}))
        assert self.get(tiered, repository, origin, "moving").status == 502
        origin.serve(path, served(self.RIGHT))
        again = self.get(tiered, repository, origin, "moving")
        assert (again.body, again.header(CACHE_STATUS)) == (self.RIGHT, "REVALIDATED")

    @pytest.mark.parametrize(
        "media_type",
        [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.manifest.v1+json; charset=UTF-8",
            "Application/VND.oci.image.Manifest.v1+json;x=1",
            "application/vnd.example.unknown+json",
        ],
    )
    def test_the_content_type_is_served_as_it_was_sent(
        self, tiered: Proxy, repository: str, origin: Origin, media_type: str
    ) -> None:
        """Content-Type is the registry's to the letter, from the registry, from the cache, for GET and for HEAD."""
        client = tiered.client()
        origin.serve(f"/v2/{repository}/manifests/latest", served(self.RIGHT, media_type))
        url = tag_url(origin.name, repository)
        accept = {"Accept": f"{MANIFEST}, application/vnd.example.unknown+json"}
        answers = [client.get(url, accept), client.get(url, accept), client.head(url, accept)]
        assert [answer.header("Content-Type") for answer in answers] == [media_type] * 3
        assert [answer.header(CACHE_STATUS) for answer in answers] == ["MISS", "HIT", "HIT"]

    def test_a_type_that_the_client_did_not_list_is_cached_for_it_too(
        self, tiered: Proxy, repository: str, origin: Origin
    ) -> None:
        """What a registry answers to an Accept field is its answer to this field, fresh or in an outage."""
        for tag in ("latest", "moving"):
            origin.serve(f"/v2/{repository}/manifests/{tag}", served(self.RIGHT, "application/json"))
            assert self.get(tiered, repository, origin, tag).header(CACHE_STATUS) == "MISS"
        origin.stop()
        answers = [self.get(tiered, repository, origin, tag) for tag in ("latest", "moving")]
        assert [answer.header(CACHE_STATUS) for answer in answers] == ["HIT", "STALE"]
        assert [answer.header("Content-Type") for answer in answers] == ["application/json"] * 2

    def test_a_registry_without_a_digest_field_is_believed_by_the_hash(
        self, tiered: Proxy, repository: str, origin: Origin
    ) -> None:
        """A tag's answer without Docker-Content-Digest gets the digest of its bytes and is cached under it."""
        origin.serve(f"/v2/{repository}/manifests/latest", Reply(self.RIGHT, headers={"Content-Type": MANIFEST}))
        first, second = self.get(tiered, repository, origin), self.get(tiered, repository, origin)
        assert first.header("Docker-Content-Digest") == second.header("Docker-Content-Digest") == sha256(self.RIGHT)
        assert second.header(CACHE_STATUS) == "HIT"

    def test_a_refusal_is_passed_on_and_never_stored(self, tiered: Proxy, repository: str, origin: Origin) -> None:
        """A registry's 404 reaches the client with its body each time, and the tag is served once it exists."""
        missing = Reply(b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', 404, {"Content-Type": "application/json"})
        path = f"/v2/{repository}/manifests/latest"
        origin.serve(path, missing)
        answers = [self.get(tiered, repository, origin) for _ in range(2)]
        assert [(answer.status, answer.body) for answer in answers] == [(404, missing.body)] * 2
        assert origin.log.count(method="GET", path_contains=path) == 2
        origin.serve(path, served(self.RIGHT))
        assert self.get(tiered, repository, origin).body == self.RIGHT


def test_an_image_index_and_its_manifests_are_served_by_digest_for_good(
    lab: Lab, tiered: Proxy, build_image: MakeImage
) -> None:
    """Content by digest is asked for once, whatever the tiers say, and HEAD of it is answered from the store."""
    image: Image = build_image(architectures=("amd64", "arm64"))
    lab.push(image, "manifests/index")
    client = tiered.client()
    urls = {digest: tag_url(lab.noauth.name, "manifests/index", digest) for digest in image.manifests}
    for digest, url in urls.items():
        assert client.get(url, {"Accept": f"{INDEX}, {MANIFEST}"}).body == image.read(digest)
    mark = lab.noauth.log.mark()
    for digest, url in urls.items():
        again = client.get(url, {"Accept": f"{INDEX}, {MANIFEST}"})
        head = client.head(url, {"Accept": f"{INDEX}, {MANIFEST}"})
        assert (again.body, again.header("Content-Type")) == (image.read(digest), image.manifests[digest])
        assert (head.body, head.header("Content-Length")) == (b"", str(len(image.read(digest))))
    assert mark.count() == 0
