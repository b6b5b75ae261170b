"""The dashboard: its figures are those of the registries and of the log, and a person can read and use the page."""

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from lab.browser import Browser
from lab.dashboard import OUTSIDE, ask_document, hub_quota, log_lines, pull, wait_for_document, write_week
from lab.fixtures import MakeImage, StartProxy
from lab.image import Image, make_image
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.proxy import Proxy
from regproxy.policy.forecast import SHORTEST_QUOTA_LOOK_S

pytestmark = pytest.mark.e2e

HTML = {"Accept": "text/html,*/*;q=0.8"}
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
SCREENSHOT = Path(__file__).parents[2] / "docs/images/dashboard.png"
GIB = 1024**3


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Yield one browser for all tests: each opens its own proxy's page, an origin of its own."""
    running = Browser(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


def large(directory: Path, seed: str) -> Image:
    return make_image(directory, seed=seed, layers=1, layer_bytes=8_000_000)


@pytest.fixture(scope="module")
def named(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield a proxy with one image."""
    directory = tmp_path_factory.mktemp("named")
    lab.push(make_image(directory / "image", seed="named"), "dash/named")
    with lab.proxy(directory / "proxy") as running:
        pull(running, f"{lab.noauth.name}/dash/named:latest", directory / "pulled")
        wait_for_document(running, lambda told: bool(told["images"]))
        yield running


@pytest.fixture(scope="module")
def busy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield a proxy that has something to show everywhere, with a name as long as names may be."""
    directory = tmp_path_factory.mktemp("busy")
    name = "dash/" + "/".join(["a-rather-long-component-of-a-name"] * 6)
    lab.push(make_image(directory / "image", seed="busy"), name)
    proxy = lab.proxy(directory / "proxy")
    write_week(proxy.cache_directory, GIB, 5 * GIB)
    with proxy as running:
        for number in range(2):
            pull(running, f"{lab.noauth.name}/{name}:latest", directory / str(number))
        running.client().request(
            "GET", "https://origin.lab.test/v2/dash/gone/manifests/latest", {"User-Agent": HOSTILE}
        )
        wait_for_document(running, lambda told: bool(told["errors"] and told["images"]))
        yield running


class TestFigures:
    def test_they_are_those_of_the_registry_and_the_log(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Two pulls: what was fetched is what the registry sent, what was served is what the log says."""
        lab.push(build_image(), "dash/equal")
        sent = lab.noauth.log.mark()
        for number in range(2):
            pull(proxy, f"{lab.noauth.name}/dash/equal:latest", tmp_path / str(number))
        told = wait_for_document(proxy, lambda told: told["today"]["hits"] >= 4)

        today, lines = told["today"], log_lines(proxy)
        gets = sent.requests(method="GET", path_contains="/dash/equal/", status=200)
        assert today["misses"] == len(gets) == 4
        assert today["hits"] == len(lines) - 4 == 4
        assert today["hit_ratio"] == 0.5
        assert today["fetched_bytes"] == sum(request.body_bytes for request in sent.requests())
        assert today["served_bytes"] == sum(int(line["bytes_sent"]) for line in lines)
        assert today["saved_bytes"] == today["served_bytes"] - today["fetched_bytes"] > 200_000
        assert told["week"] == today
        assert sum(minute["served_bytes"] for minute in told["hour"]) == today["served_bytes"]
        (image,) = told["images"]
        assert image == {
            "registry": lab.noauth.name,
            "image": "dash/equal",
            "requests": 8,
            "hits": 4,
            "served_bytes": today["served_bytes"],
        }

    def test_a_restart_goes_on_counting(self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path) -> None:
        """The days are in the cache directory; the next process adds to them."""
        lab.push(build_image(), "dash/restart")
        reference = f"{lab.noauth.name}/dash/restart:latest"
        pull(proxy, reference, tmp_path / "before")
        before = wait_for_document(proxy, lambda told: told["today"]["misses"] == 4)["today"]
        proxy.restart()
        assert ask_document(proxy)["today"] == before
        pull(proxy, reference, tmp_path / "after")
        after = wait_for_document(proxy, lambda told: told["today"]["hits"] == 4)["today"]
        assert after["served_bytes"] == 2 * before["served_bytes"]
        assert after["misses"] == 4

    def test_a_running_download_and_who_waits(
        self, proxy: Proxy, origin: Origin, tmp_path: Path, browser: Browser
    ) -> None:
        """Two clients and one download: how much has arrived, for whom; when it ends it is gone."""
        image, gate = large(tmp_path / "image", "running"), Gate()
        origin.serve_image("dash/running", "latest", image, Reply(hold_after_bytes=4_000_000, gate=gate))
        size_bytes = image.file(image.layers[0]).stat().st_size
        url = f"https://{origin.name}/v2/dash/running/blobs/{image.layers[0]}"
        with ThreadPoolExecutor(2) as clients:
            try:
                answers = [clients.submit(proxy.client().request, "GET", url) for _ in range(2)]
                told = wait_for_document(
                    proxy,
                    lambda told: (
                        [(each["waiting"], each["arrived_bytes"]) for each in told["downloads"]] == [(2, 4_000_000)]
                    ),
                )
                browser.show_as()
                browser.open(f"http://{proxy.address}/")
                line = browser.wait_for_text(".download", "requests wait")
                shown = browser.run("const p = document.querySelector('.download progress'); return [p.value, p.max]")
                outside = ask_document(proxy, OUTSIDE)["downloads"]
            finally:
                gate.open()
            assert [answer.result().status for answer in answers] == [200, 200]

        (download,) = told["downloads"]
        assert (download["registry"], download["image"]) == (origin.name, "dash/running")
        assert (download["size_bytes"], download["clients"]) == (size_bytes, ["127.0.0.1"])
        assert f"{origin.name}/dash/running" in line
        assert "4.0 MB of 8.0 MB" in line
        assert "2 requests wait: 127.0.0.1" in line
        assert shown == [4_000_000, size_bytes]
        assert [(each["image"], each["clients"], each["digest"]) for each in outside] == [(None, None, None)]
        assert origin.log.count(method="GET", path_contains=image.layers[0]) == 1
        wait_for_document(proxy, lambda told: told["downloads"] == [])
        browser.wait_for_text("#downloads", "None.")

    def test_an_upstream_that_is_away_and_the_error_it_makes(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """In words: since when, why, and what the client got; for others without the image."""
        lab.push(build_image(), "dash/away", to=lab.other)
        reference = f"{lab.other.name}/dash/away:latest"
        pull(proxy, reference, tmp_path / "before")
        with lab.other.stopped():
            pull(proxy, reference, tmp_path / "stale")
            told = wait_for_document(proxy, lambda told: bool(told["errors"]))
            outside = ask_document(proxy, OUTSIDE)
        (registry,) = [each for each in told["registries"] if each["name"] == lab.other.name]
        assert registry["state"] in ("away", "tried")
        assert "cannot be reached" in registry["reason"]
        stale = [each for each in told["errors"] if each["image"] == "dash/away:latest"]
        assert [(each["status"], each["words"]) for each in stale] == [
            (200, "the registry gave no usable answer: the last good copy was served")
        ]
        assert lab.other.name in stale[0]["reason"]
        assert "dash/away" not in json.dumps(outside)
        assert "skopeo" not in json.dumps(outside)
        assert [each["words"] for each in outside["errors"]] == [each["words"] for each in told["errors"]]

    def test_what_is_left_of_a_quota(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path, browser: Browser
    ) -> None:
        """As the registry said last; that nothing is left is told at once, a forecast needs a minute."""
        for name, remaining in (("first", 50), ("second", 0)):
            lab.push(build_image(name), f"library/dash-{name}")
            with lab.hub.telling(*hub_quota(remaining)):
                pull(proxy, f"{lab.hub.name}/library/dash-{name}:latest", tmp_path / name)
            (quota,) = wait_for_document(proxy, lambda told: bool(told["quotas"]))["quotas"]
            assert quota["remaining"] == remaining
            assert (quota["registry"], quota["limit"], quota["window_s"]) == ("docker.io", 100, 21600)
            assert quota["outlook"] == ("runs_out" if remaining == 0 else "unknown")
        browser.show_as()
        browser.open(f"http://{proxy.address}/")
        assert "0 of 100 in 6 h" in browser.wait_for_text("#quotas", "used up")
        assert ask_document(proxy, OUTSIDE)["quotas"][0]["account"] is None

    def test_when_the_oldest_entry_is_evicted(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, browser: Browser
    ) -> None:
        """A week with a GiB a day and a cap of three: the cache is full within three and a half days.

        The hour decides how much of the seventh day counts; soon after midnight it is three days.
        """
        proxy = start_proxy({"CACHE_MAX_SIZE": "3g", "CACHE_MIN_FREE": "0"}, start=False)
        write_week(proxy.cache_directory, GIB, 5 * GIB)
        proxy.start()
        lab.push(build_image(), "dash/disk")
        pull(proxy, f"{lab.noauth.name}/dash/disk:latest", tmp_path / "pulled")
        disk = wait_for_document(proxy, lambda told: bool(told["disk"] and told["disk"]["horizon"]))["disk"]

        per_day, horizon = disk["fills_bytes_per_day"], disk["horizon"]
        assert 6 * GIB / 7 - 1 <= per_day <= GIB + 1_000_000
        assert horizon["cause"] == "room"
        assert horizon["oldest_goes_in_s"] == pytest.approx(disk["room_bytes"] / per_day * 86400, rel=0.01)
        browser.open(f"http://{proxy.address}/")
        said = browser.wait_for_text("#horizon", "At this rate")
        assert re.search(r"B a day\) the oldest entry is evicted after 3(\.[1-5])? days", said), said


class TestWhoSeesNames:
    @pytest.mark.parametrize(
        "headers",
        [
            OUTSIDE,
            {"Forwarded": "for=192.0.2.9"},
            {"Host": "rebound.example:3128"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": "https://evil.example"},
            {"Authorization": "Bearer guessed", **OUTSIDE},
        ],
        ids=["behind a proxy", "behind another", "rebound name", "other site", "other origin", "wrong token"],
    )
    def test_others_see_registries_only(self, named: Proxy, lab: Lab, headers: dict[str, str]) -> None:
        """Neither the image nor the client is in the document."""
        told = ask_document(named, headers)
        assert told["names"] is False
        assert [(each["registry"], each["image"]) for each in told["images"]] == [(lab.noauth.name, None)]
        assert "dash/named" not in json.dumps(told)

    def test_this_machine_sees_them(self, named: Proxy) -> None:
        """Without a token, as the operator's shell and browser do."""
        assert [each["image"] for each in ask_document(named)["images"]] == ["dash/named"]

    def test_with_a_token_who_gives_it_sees_them(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, browser: Browser, tmp_path: Path
    ) -> None:
        """Neither this machine nor a reverse proxy counts then; the page asks for it and keeps it in its tab."""
        token = "the-operators-own-token"
        proxy = start_proxy({"ADMIN_TOKEN": token})
        lab.push(build_image(), "dash/token")
        pull(proxy, f"{lab.noauth.name}/dash/token:latest", tmp_path / "pulled")
        told = wait_for_document(proxy, lambda told: bool(told["images"]))
        assert ([each["image"] for each in told["images"]], told["token_helps"]) == ([None], True)
        shown = ask_document(proxy, {"Authorization": f"Bearer {token}", **OUTSIDE})
        assert [each["image"] for each in shown["images"]] == ["dash/token"]
        browser.open(f"http://{proxy.address}/")
        browser.wait_for_text("#token-title", "Names")
        browser.enter("#token", token)
        assert "dash/token" in browser.wait_for_text("#images", "dash/token")


class TestPage:
    @pytest.fixture
    def page(self, busy: Proxy, browser: Browser) -> Browser:
        """Return the browser with the page open, live."""
        browser.open("about:blank")
        browser.complaints()
        browser.show_as()
        browser.open(f"http://{busy.address}/")
        browser.wait_for_text("#state", "live")
        return browser

    def test_it_is_for_browsers(self, busy: Proxy) -> None:
        """A health check gets the predecessor's words, a browser a page that names what to do next."""
        assert busy.request("GET", "/", {"Accept": "*/*"}).body.startswith(b"docker-registry-proxy: ")
        page, head = busy.request("GET", "/", HTML), busy.request("HEAD", "/", HTML)
        assert (page.status, page.header("Content-Type")) == (200, "text/html; charset=utf-8")
        assert b'href="setup/"' in page.body
        assert (head.body, head.header("Content-Length")) == (b"", str(len(page.body)))
        policy = page.header("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert b"<script>" not in page.body
        assert b" style=" not in page.body
        assert b"//" not in page.body.replace(b"<!doctype html>", b"")
        assert busy.request("POST", "/_proxy/dashboard.json").status == 405

    def test_it_shows_what_the_document_says(self, busy: Proxy, page: Browser) -> None:
        """The tiles and the tables; nothing is blocked by its own rules."""
        told = ask_document(busy)
        assert page.texts("#hit-ratio") == ["50 %"]
        assert page.texts("#saved")[0].endswith(" kB")
        assert page.texts("#images td")[:3] == [
            f"{told['images'][0]['registry']}/{told['images'][0]['image']}",
            f"{told['images'][0]['served_bytes'] / 1000:.0f} kB",
            "8",
        ]
        assert len(page.texts("#hour rect")) == 120
        assert len(page.texts("#week rect")) == 14
        assert page.complaints() == []

    def test_hostile_texts_are_texts(self, page: Browser) -> None:
        """A client's User-Agent as it is; and were every text in the document hostile, none would become an element."""
        assert HOSTILE in page.wait_for_text("#errors", "<img")
        kept = json.dumps(["state", "cause"])
        page.run(f"""
            const real = window.fetch;
            const spoil = (value, key) => {kept}.includes(key) ? value
              : typeof value === "string" ? {json.dumps(HOSTILE)}
              : Array.isArray(value) ? value.map((each) => spoil(each, ""))
              : value !== null && typeof value === "object"
              ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, spoil(each, key)])) : value;
            window.fetch = async (...asked) => {{
              const told = spoil(await (await real(...asked)).json(), "");
              return {{ ok: true, json: async () => told }};
            }};
        """)
        for place in ("#images", "#registries", "#errors"):
            assert HOSTILE in page.wait_for_text(place, "<script>")
        assert page.run("return [window.hacked ?? null, document.querySelectorAll('img, main script').length]") == [
            None,
            0,
        ]

    def test_names_are_left_out_for_others(self, busy: Proxy, browser: Browser) -> None:
        """By a name of the machine, which is not taken for its operator: the page says what is missing, and why."""
        browser.open(f"http://other.localhost:{busy.address.port}/")
        assert "by registry: names are for the operator" in browser.wait_for_text("#images-note", "Since")
        browser.wait_for_text("#images", "noauth.lab.test")
        assert "a-rather-long-component" not in browser.source
        assert browser.texts("#token-section") == [""]  # there is no token that could help

    def test_a_keyboard_is_enough(self, page: Browser) -> None:
        """Skip link, links, pause and details are reached in this order by Tab, seen when reached, and work."""
        reached = []
        for _ in range(6):
            page.press(Keys.TAB)
            reached.append(page.run("return document.activeElement.textContent"))
            assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert reached == ["Skip to the figures", "Set up a client", "CA certificate", "Metrics", "Pause", "As numbers"]
        page.press(Keys.ENTER)
        page.wait_for_text("#week-table", "Saved")
        page.press(Keys.TAB, holding=Keys.SHIFT)
        page.press(Keys.SPACE)
        page.wait_for_text("#state", "paused")
        page.press(Keys.SPACE)
        page.wait_for_text("#state", "live")

    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    def test_texts_stand_out(self, page: Browser, dark: bool) -> None:
        """In both schemes each kind of text has a contrast of 4.5 to its card (WCAG 2.2, 1.4.3)."""
        page.show_as(dark=dark)
        lightness = page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(lightness) < 60) is dark
        kinds = {"td": "text", ".quiet": "quiet", ".bad": "bad", "summary": "link", ".tiles dd": "figure"}
        for selector in kinds:
            assert page.run(_CONTRAST.replace("SELECTOR", selector)) >= 4.5, selector

    @pytest.mark.parametrize("width", [320, 768])
    def test_it_fits_a_narrow_screen(self, page: Browser, width: int) -> None:
        """Nothing is wider than the screen, whatever the names: no scrolling sideways (WCAG 2.2, 1.4.10)."""
        page.show_as(width=width, height=800)
        page.wait_for_text("#images", "a-rather-long-component")
        page_width, room, screen = page.run(
            "const root = document.documentElement; return [root.scrollWidth, root.clientWidth, window.innerWidth]"
        )
        assert (screen, page_width) == (width, room)
        assert page.run(_TOO_WIDE) == []

    def test_it_says_when_the_proxy_is_gone(self, start_proxy: StartProxy, browser: Browser) -> None:
        """And goes on when it is back."""
        proxy = start_proxy()
        browser.show_as()
        browser.open(f"http://{proxy.address}/")
        browser.wait_for_text("#state", "live")
        proxy.stop()
        browser.wait_for_text("#state", "no answer since")
        proxy.start()
        browser.wait_for_text("#state", "live")


_CONTRAST = """
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const element = document.querySelector("main SELECTOR");
    let under = element;
    while (parse(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
    const [a, b] = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor]
      .map((color) => luminance(parse(color))).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
"""
_TOO_WIDE = """
    const width = document.documentElement.clientWidth;
    return [...document.querySelectorAll("main *, header *")]
      .filter((each) => each.getClientRects().length && getComputedStyle(each).position !== "absolute")
      .filter((each) => !each.closest("thead") && each.getBoundingClientRect().right > width + 0.5)
      .map((each) => each.outerHTML.slice(0, 100));
"""


@pytest.mark.slow
def test_the_picture_of_the_documentation(
    lab: Lab, start_proxy: StartProxy, origin: Origin, tmp_path: Path, browser: Browser
) -> None:
    """It is taken with real traffic; `make screenshot` puts it into docs/images."""
    proxy = start_proxy({"CACHE_MAX_SIZE": "64g", "CACHE_MIN_FREE": "0"}, start=False)
    write_week(proxy.cache_directory, 4 * GIB, 38 * GIB)
    proxy.start()
    is_renewed = bool(os.environ.get("RENEW_SCREENSHOT"))
    for name, size_bytes, remaining in (("web/shop", 3_000_000, 80), ("base/python", 2_000_000, 77)):
        image = make_image(tmp_path / name.replace("/", "-"), seed=name, layers=2, layer_bytes=size_bytes)
        lab.push(image, name)
        with lab.hub.telling(*hub_quota(remaining)):
            for number in range(3):
                pull(proxy, f"{lab.hub.name}/{name}:latest", tmp_path / f"{name.replace('/', '-')}-{number}")
        if is_renewed and remaining == 80:
            time.sleep(SHORTEST_QUOTA_LOOK_S + 5)  # for a forecast in the picture
    with lab.hub.stopped():
        pull(proxy, f"{lab.hub.name}/web/shop:latest", tmp_path / "stale")
    image = large(tmp_path / "layer", "picture")
    origin.serve_image("ml/models", "latest", image, Reply(rate_bytes_per_s=500_000))
    url = f"https://{origin.name}/v2/ml/models/blobs/{image.layers[0]}"
    with ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(proxy.client().request, "GET", url) for _ in range(2)]
        wait_for_document(
            proxy, lambda told: [each["arrived_bytes"] > 2_000_000 for each in told["downloads"]] == [True]
        )
        browser.show_as(width=1100, height=1540)
        browser.open(f"http://{proxy.address}/")
        browser.wait_for_text(".download", "2 requests wait")
        browser.wait_for_text("#quotas", "77 of 100")
        picture = SCREENSHOT if is_renewed else tmp_path / "dashboard.png"
        browser.save_screenshot(picture)
        assert [answer.result().status for answer in answers] == [200, 200]
    assert picture.read_bytes().startswith(b"\x89PNG")
