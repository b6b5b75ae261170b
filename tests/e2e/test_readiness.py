"""Which images would come from the cache in an outage; and drills, which try it on chosen clients."""

import json

import pytest

from e2e.test_admin import REGISTRY, ask, pull
from e2e.test_admin_command import run
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

CLIENT = "127.0.0.1"


def remove_blob(proxy: Proxy, digest: str) -> None:
    """Let one content be away, as after an eviction."""
    assert ask(proxy, "POST", "/purge", target=digest)["contents"] == [digest]


class TestReadiness:
    def test_a_hole_is_found_and_filled(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """What misses a layer is named, `--fill` pulls the layer, and the image pulls while its registry is away."""
        lab.push(build_image(), "ready/whole")
        lab.push(build_image(seed="holed"), "ready/holed")
        pull(proxy, "ready/whole")
        layer = pull(proxy, "ready/holed")[-1].header("Docker-Content-Digest")
        assert "2 of 2 images" in run(proxy, "readiness")
        remove_blob(proxy, layer)

        told = ask(proxy, "GET", "/readiness")
        states = {each["image"]: (each["state"], each["missing"]) for each in told["images"]}
        assert states == {
            f"{REGISTRY}/ready/whole:latest": ("ready", []),
            f"{REGISTRY}/ready/holed:latest": ("incomplete", [layer]),
        }
        assert "1 of 2 images" in run(proxy, "readiness", code=1, stdout=True)
        assert "2 of 2 images" in run(proxy, "readiness", "--fill")
        lab.noauth.stop()
        try:
            assert len(pull(proxy, "ready/holed")) == 4
        finally:
            lab.noauth.start()

    def test_what_is_gone_altogether_is_missed(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Content that was evicted, its manifest with it, was pulled all the same."""
        digest = lab.push(build_image(), "ready/gone")
        pull(proxy, "ready/gone")
        (path,) = proxy.cache_directory.glob(f"content/*/*/{digest.removeprefix('sha256:')}")
        path.chmod(0o600)
        path.write_bytes(b"x" * path.stat().st_size)
        run(proxy, "verify", code=1)
        (image,) = ask(proxy, "GET", "/readiness", target=f"{REGISTRY}/ready/gone")["images"]
        assert (image["state"], image["missing"]) == ("incomplete", [digest])

    def test_an_image_that_was_purged_is_not_missed(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Who purges it does not want it."""
        lab.push(build_image(), "ready/purged")
        pull(proxy, "ready/purged")
        ask(proxy, "POST", "/purge", target=f"{REGISTRY}/ready/purged")
        assert ask(proxy, "GET", "/readiness")["images"] == []
        assert "nothing was pulled within 30 days" in run(proxy, "readiness")


class TestDrill:
    def test_a_client_that_takes_part_gets_what_is_stored(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """Nobody asks the registry for it; what is not stored fails, is listed, and is there again afterwards."""
        proxy = start_proxy({})
        lab.push(build_image(), "drill/warm")
        lab.push(build_image(seed="cold"), "drill/cold")
        pull(proxy, "drill/warm")
        ask(proxy, "POST", "/drills", target=REGISTRY, clients=CLIENT, duration="1h")
        mark = lab.noauth.log.mark()
        pull(proxy, "drill/warm")
        client = proxy.client()
        failed = client.get(f"https://{REGISTRY}/v2/drill/cold/manifests/latest")
        assert failed.status in (502, 503)
        assert "in a drill" in failed.body.decode()
        assert client.get(f"https://{REGISTRY}/v2/drill/cold/tags/list").status in (502, 503)
        assert mark.requests() == []
        (drill,) = ask(proxy, "DELETE", "/drills", target=REGISTRY)["drills"]
        assert {each["what"] for each in drill["failures"]} == {
            f"{REGISTRY}/v2/drill/cold/manifests/latest",
            f"{REGISTRY}/v2/drill/cold/tags/list",
        }
        assert drill["under_way"] is False
        pull(proxy, "drill/cold")

    def test_others_notice_nothing(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """A drill for another network."""
        lab.push(build_image(), "drill/others")
        ask(proxy, "POST", "/drills", target=REGISTRY, clients="192.0.2.0/24", duration="1h")
        pull(proxy, "drill/others")
        (drill,) = ask(proxy, "GET", "/drills")["drills"]
        assert (drill["under_way"], drill["served"], drill["failed"]) == (True, 0, 0)

    def test_the_command_shows_it(self, lab: Lab, proxy: Proxy, build_image: MakeImage) -> None:
        """Without a client it says what would fail; with one, what did, as an exit code too."""
        lab.push(build_image(), "drill/command")
        layer = pull(proxy, "drill/command")[-1].header("Docker-Content-Digest")
        assert "1 of 1 images" in run(proxy, "drill", "--registry", REGISTRY)
        remove_blob(proxy, layer)
        assert "incomplete" in run(proxy, "drill", "--registry", REGISTRY, code=1, stdout=True)
        told = run(proxy, "drill", "--registry", REGISTRY, "--client", CLIENT, "--for", "1s", "--json")
        assert json.loads(told)["failed"] == 0

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ({"target": f"{REGISTRY}/a/b", "clients": CLIENT, "duration": "1m"}, "a drill is for a registry"),
            ({"target": REGISTRY, "clients": "everybody", "duration": "1m"}, "neither a network"),
            ({"target": REGISTRY, "clients": " ", "duration": "1m"}, "say for whom"),
            ({"target": REGISTRY, "clients": CLIENT, "duration": "25h"}, "24 hours"),
        ],
    )
    def test_what_cannot_be_is_told(self, proxy: Proxy, query: dict[str, str], reason: str) -> None:
        """And nothing begins."""
        assert reason in ask(proxy, "POST", "/drills", 400, **query)["error"]
        assert ask(proxy, "GET", "/drills")["drills"] == []
