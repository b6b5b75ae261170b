"""What operators do to a proxy with a bucket, and what they see of it: purge, warm, import, why, status, metrics."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import obstore
import pytest

from e2e.test_admin import REGISTRY, ask, until
from e2e.test_admin_command import run
from e2e.test_metrics import families
from e2e.test_shared_store import STATUS, contents, path, sha256
from lab.fixtures import MakeImage, StartProxy
from lab.http_client import Response
from lab.image import MANIFEST, Image
from lab.lab import Lab
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.seaweed import Seaweed, names_in

pytestmark = pytest.mark.e2e

SETTINGS = {"ENABLE_MANIFEST_CACHE": "true", "MANIFEST_CACHE_DEFAULT_TIME": "1h"}


@dataclass
class Replicas:
    """Two proxies, and the bucket that they share."""

    lab: Lab
    weed: Seaweed
    first: Proxy
    second: Proxy

    @property
    def names(self) -> set[str]:
        """What is in the bucket."""
        return set(names_in(self.weed.bucket("shared")))

    def tags(self) -> set[str]:
        """Return the names of what is said of tags there."""
        return {name for name in self.names if name.startswith("cache/tags/")}

    def wait_for(self, image: Image) -> None:
        """Wait until others can use all of an image."""
        wanted = {path("about", digest) for digest in contents(image)}
        until(lambda: wanted - self.names, lambda missing: not missing)


@pytest.fixture(scope="module")
def replicas(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Start the engine and two proxies for this file."""
    directory = tmp_path_factory.mktemp("operations")
    with ExitStack() as cleanup:
        weed = cleanup.enter_context(Seaweed(directory / "weed"))
        settings = {**SETTINGS, **weed.settings("shared")}
        first, second = (cleanup.enter_context(lab.proxy(directory / f"proxy-{n}", settings)) for n in range(2))
        yield Replicas(lab, weed, first, second)


def get(proxy: Proxy, target: str) -> Response:
    return proxy.request("GET", f"/v2/{target}?ns={REGISTRY}", {"Accept": MANIFEST})


def pull(proxy: Proxy, name: str, image: Image) -> list[Response]:
    """Pull the tag, and all that belongs to it."""
    answers = [get(proxy, f"{name}/manifests/latest"), *(get(proxy, f"{name}/blobs/{blob}") for blob in image.blobs)]
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert sha256(answers[0].body) == image.digest
    return answers


def pushed(replicas: Replicas, build_image: MakeImage, name: str) -> Image:
    image = build_image(name)
    replicas.lab.push(image, name)
    return image


class TestPurge:
    def test_what_was_purged_does_not_come_back_from_the_bucket(
        self, lab: Lab, replicas: Replicas, build_image: MakeImage
    ) -> None:
        """It is gone there, too: the next pull asks the registry for all of it, and then the others have it again."""
        name = "operations/purged"
        image = pushed(replicas, build_image, name)
        before = replicas.tags()
        pull(replicas.first, name, image)
        replicas.wait_for(image)
        until(lambda: replicas.tags() - before, bool)
        told = ask(replicas.first, "POST", "/purge", target=f"{REGISTRY}/{name}:latest")

        assert told["shared_store"] is True
        assert sorted(told["contents"]) == sorted(contents(image))
        assert replicas.tags() <= before
        assert not [each for each in replicas.names if any(digest[7:] in each for digest in contents(image))]
        log = lab.noauth.log.mark()
        statuses = [answer.header(STATUS) for answer in pull(replicas.first, name, image)]
        assert statuses == ["MISS"] * len(statuses)
        assert log.count(method="GET") == len(contents(image))
        replicas.wait_for(image)
        log = lab.noauth.log.mark()
        pull(replicas.second, name, image)
        assert log.count(method="GET") == 0

    def test_a_tag_that_only_the_bucket_knows_is_forgotten(
        self, lab: Lab, replicas: Replicas, build_image: MakeImage
    ) -> None:
        """The second has never seen the image; a dry run changes nothing."""
        name = "operations/elsewhere"
        image, before = pushed(replicas, build_image, name), replicas.tags()
        pull(replicas.first, name, image)
        replicas.wait_for(image)
        until(lambda: replicas.tags() - before, bool)
        target = f"{REGISTRY}/{name}:latest"
        assert ask(replicas.second, "POST", "/purge", target=target, dry_run="true")["shared_store"] is None
        assert replicas.tags() - before
        assert "gone from the shared store" in run(replicas.second, "purge", target)
        assert replicas.tags() <= before
        log = lab.noauth.log.mark()
        assert get(replicas.second, f"{name}/manifests/latest").status == 200
        assert log.count(path_contains="/manifests/latest") == 1

    def test_by_age_the_bucket_is_left_alone(self, replicas: Replicas, build_image: MakeImage) -> None:
        """What is old here may be in use elsewhere."""
        name = "operations/old"
        image = pushed(replicas, build_image, name)
        pull(replicas.first, name, image)
        replicas.wait_for(image)
        told = ask(replicas.first, "POST", "/purge", target=f"{REGISTRY}/{name}", older_than="0s")

        assert told["shared_store"] is None
        assert set(told["contents"]) == set(contents(image))
        assert {path("content", digest) for digest in contents(image)} <= replicas.names
        assert [answer.header(STATUS) for answer in pull(replicas.first, name, image)][1:] == ["HIT"] * len(image.blobs)

    def test_what_could_not_be_removed_is_said_and_not_used(
        self, lab: Lab, replicas: Replicas, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """The bucket gives no answer while an operator purges."""
        name = "operations/kept"
        image = pushed(replicas, build_image, name)
        pull(replicas.second, name, image)
        replicas.wait_for(image)
        proxy = start_proxy({**SETTINGS, **replicas.weed.settings("shared")})
        pull(proxy, name, image)
        replicas.weed.kill()
        try:
            told = ask(proxy, "POST", "/purge", target=f"{REGISTRY}/{name}:latest")
        finally:
            replicas.weed.start()
        assert told["shared_store"] is False
        until(lambda: ask(proxy, "GET", "/status")["shared_store"]["reading"], bool)
        log = lab.noauth.log.mark()
        pull(proxy, name, image)
        assert log.count(method="GET", path_contains="/blobs/") == len(image.blobs)


def test_what_one_has_warmed_the_others_have(lab: Lab, replicas: Replicas, build_image: MakeImage) -> None:
    """It is written to the bucket; another one that warms it takes it from there."""
    name = "operations/warmed"
    image = pushed(replicas, build_image, name)
    target = f"{REGISTRY}/{name}:latest"
    for proxy, blobs_asked in ((replicas.first, len(image.blobs)), (replicas.second, 0)):
        log = lab.noauth.log.mark()
        ask(proxy, "POST", "/warmings", target=target)
        (warmed,) = until(
            lambda: [each for each in ask(proxy, "GET", "/warmings")["images"] if each["image"] == target],  # noqa: B023
            lambda jobs: all(job["state"] != "running" for job in jobs),
        )
        assert (warmed["state"], warmed["stored"]) == ("done", len(contents(image))), warmed
        assert log.count(method="GET", path_contains="/blobs/") == blobs_asked
        replicas.wait_for(image)


def test_what_was_imported_at_one_is_there_at_the_others(
    replicas: Replicas, build_image: MakeImage, start_proxy: StartProxy
) -> None:
    """Brought by hand to a proxy without a registry: another one without a registry serves it, from the bucket."""
    offline = {**SETTINGS, "OFFLINE": "true", **replicas.weed.settings("shared", prefix="offline")}
    first, second = start_proxy(offline), start_proxy(offline)
    image = build_image()
    name = "operations/imported"
    run(first, "import", str(image.layout), "--name", f"{REGISTRY}/{name}:latest")
    wanted = {path("about", digest).replace("cache/", "offline/", 1) for digest in contents(image)}
    until(lambda: wanted - replicas.names, lambda missing: not missing)
    until(lambda: [each for each in replicas.names if each.startswith("offline/tags/")], bool)

    pull(second, name, image)


def test_who_answered_is_in_the_log_in_why_in_the_metrics_and_in_the_status(
    replicas: Replicas, build_image: MakeImage
) -> None:
    """For a manifest by its tag, and for blobs; then it is the disk that answers."""
    name = "operations/told"
    image = pushed(replicas, build_image, name)
    pull(replicas.first, name, image)
    replicas.wait_for(image)
    found = counted(replicas.second, "registry_proxy_shared_store_reads_total", outcome="found")
    read = counted(replicas.second, "registry_proxy_shared_store_read_bytes_total")
    answers = pull(replicas.second, name, image)
    again = pull(replicas.second, name, image)

    by_id = until(lambda: lines(replicas.second), lambda seen: again[-1].header(ID) in seen)
    assert [by_id[answer.header(ID)]["source"] for answer in answers] == ["bucket"] * len(answers)
    assert [by_id[answer.header(ID)]["source"] for answer in again] == [""] * len(again)
    told = ask(replicas.second, "GET", "/why", subject=answers[1].header(ID))
    assert told["request"]["words"] == "answered from the bucket, the registry was not asked for it"
    grew(replicas.second, "reads_total", found, len(contents(image)), outcome="found")
    grew(replicas.second, "read_bytes_total", read, sum(len(answer.body) for answer in answers))
    assert counted(replicas.second, "registry_proxy_shared_store_up", direction="read") == 1
    status = until(lambda: ask(replicas.first, "GET", "/status")["shared_store"], lambda seen: seen["waiting"] == 0)
    assert status["reading"] is status["writing"] is True
    assert status["written"] >= len(contents(image))
    assert f"{status['url']}: answers" in run(replicas.first, "status")
    page = json.loads(replicas.first.request("GET", "/_proxy/dashboard.json").body)
    assert page["shared_store"]["reads"] == status["reads"]
    assert "url" not in page["shared_store"]


def test_wrong_content_is_counted(replicas: Replicas, build_image: MakeImage) -> None:
    """And the right one is served."""
    name = "operations/wrong"
    image = pushed(replicas, build_image, name)
    pull(replicas.first, name, image)
    replicas.wait_for(image)
    wrong = counted(replicas.second, "registry_proxy_shared_store_reads_total", outcome="wrong")
    for digest in contents(image):
        obstore.put(replicas.weed.bucket("shared"), path("content", digest), b"something else")
    pull(replicas.second, name, image)

    grew(replicas.second, "reads_total", wrong, len(contents(image)), outcome="wrong")


def test_without_a_registry_the_bucket_is_enough(
    lab: Lab, replicas: Replicas, start_proxy: StartProxy, build_image: MakeImage
) -> None:
    """A new proxy with OFFLINE, whose disk is empty, serves what others have pulled, also when its time is over."""
    name = "operations/offline"
    image = pushed(replicas, build_image, name)
    before = replicas.tags()
    pull(replicas.first, name, image)
    replicas.wait_for(image)
    until(lambda: replicas.tags() - before, bool)
    stale = {"MANIFEST_CACHE_DEFAULT_TIME": "1s"}
    proxy = start_proxy({**SETTINGS, **stale, "OFFLINE": "true", **replicas.weed.settings("shared")})
    log = lab.noauth.log.mark()
    heads = [proxy.request("HEAD", f"/v2/{name}/blobs/{blob}?ns={REGISTRY}") for blob in image.blobs]
    time.sleep(1.1)  # so long is the record fresh
    answers = pull(proxy, name, image)

    assert log.requests() == []
    assert answers[0].header(STATUS) == "STALE"
    described = [(head.status, head.header("Content-Length"), head.body) for head in heads]
    assert described == [(200, str(len(answer.body)), b"") for answer in answers[1:]]


ID = "X-Registry-Proxy-Request-Id"


def lines(proxy: Proxy) -> dict[str, dict[str, str]]:
    """Return the lines of the access log by the id of the request."""
    return {line["request_id"]: line for line in access_log(proxy)}


def counted(proxy: Proxy, name: str, **labels: str) -> float:
    """Return a metric's value."""
    samples = [sample for family in families(proxy).values() for sample in family.samples]
    return sum(each.value for each in samples if each.name == name and each.labels == labels)


def grew(proxy: Proxy, name: str, before: float, by: int, **labels: str) -> None:
    """Wait until a number has grown by so much; what other workers count is known a moment later, here and before."""
    is_alone = proxy.settings["WORKERS"] == "1"
    until(
        lambda: counted(proxy, f"registry_proxy_shared_store_{name}", **labels) - before,
        lambda grown: grown == by if is_alone else grown >= by,
    )
