"""Who gets into debug mode's web interface, from where, and what can be done there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.debug_mode import (
    DEBUG_PASSWORD,
    HUB_WEB_PORT,
    OWN_PAGE,
    WEB_PORT,
    ask_web,
    class_proxy,
    debug_proxy,
    own_host,
    shown_flows,
)
from lab.fixtures import StartProxy
from lab.image import make_image
from lab.lab import Lab
from lab.proxy import Proxy
from lab.raw_http import ask, parse_response

pytestmark = pytest.mark.e2e

MACHINE_NAMES = ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "127.1")  # noqa: S104


def made_passwords(proxy: Proxy) -> list[str]:
    """Return the passwords that it has made and printed, oldest first."""
    return re.findall(r"shows the traffic at \S+\?token=([\w-]+)$", proxy.log, re.MULTILINE)


@pytest.fixture(scope="class")
def closed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield a proxy that makes its own password, with a pull in its list."""
    directory = tmp_path_factory.mktemp("password")
    lab.push(make_image(directory / "image", seed="hidden", layers=1, layer_bytes=1000), "debug/hidden")
    with class_proxy(lab, directory, {"DEBUG_PASSWORD": ""}) as running:
        running.skopeo().pull(f"{lab.noauth.name}/debug/hidden:latest", directory / "pulled")
        yield running


class TestPassword:
    def test_one_is_made_at_start_and_printed_once(self, closed: Proxy) -> None:
        """It opens the interface, is no process argument, and is in neither the event log nor the access log."""
        (password,) = made_passwords(closed)
        assert closed.log.count(password) == 1
        assert len(password) >= 32
        assert ask_web(closed, f"/?token={password}", password=None).status == 200
        arguments = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in closed.pids())
        assert password.encode() not in arguments
        for page in ("/events", "/options"):
            assert password not in ask_web(closed, page, password=password).body.decode()

    def test_each_start_makes_another(self, lab: Lab, start_proxy: StartProxy) -> None:
        """Who has read an old log does not get in."""
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_PASSWORD": ""}).start()
        (first,) = made_passwords(proxy)
        # both are refused, and told of in the log with their address
        assert ask_web(proxy, f"/flows/x?token={first}", password=None).status == 404
        assert ask_web(proxy, f"/?token={first}", method="POST", password=None, body="").status == 403
        proxy.restart()
        assert "404 GET /flows/x?token=*** " in proxy.log
        assert proxy.log.count(first) == 1
        _, second = made_passwords(proxy)
        assert ask_web(proxy, "/flows", password=first).status == 403
        assert ask_web(proxy, "/flows", password=second).status == 200

    @pytest.mark.parametrize(
        "target",
        ["/", "/flows", "/flows.json", "/flows/dump", "/events", "/options", "/state", "/commands", "/updates"],
    )
    @pytest.mark.parametrize("password", [None, "wrong", ""], ids=["none", "wrong", "empty"])
    def test_without_it_nothing_is_seen(self, closed: Proxy, target: str, password: str | None) -> None:
        """Every page is 403 and names no repository; the stream of events does not open."""
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "MDEyMzQ1Njc4OWFiY2RlZg=="
        answer = ask_web(closed, target, password=password, headers=headers if target == "/updates" else None)
        assert answer.status == 403
        assert b"debug/hidden" not in answer.body

    def test_one_from_a_file_is_used_and_not_printed(self, lab: Lab, start_proxy: StartProxy, tmp_path: Path) -> None:
        """As secrets of containers are: a file with a line end."""
        file = tmp_path / "password"
        file.write_text(f"{DEBUG_PASSWORD}\n")
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_PASSWORD": "", "DEBUG_PASSWORD_FILE": str(file)}).start()
        assert ask_web(proxy, "/flows").status == 200
        assert ask_web(proxy, "/flows", password="wrong").status == 403
        assert DEBUG_PASSWORD not in proxy.log
        assert f"http://{proxy.address.host}:{WEB_PORT}/" in proxy.log


@pytest.fixture(scope="class")
def showing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield one proxy for the class: nothing that is asked of it does anything."""
    with class_proxy(lab, tmp_path_factory.mktemp("showing")) as running:
        yield running


class TestOnlyShowing:
    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("PUT", "/options"),
            ("POST", "/commands/replay.client"),
            ("POST", "/commands/export.file"),
            ("POST", "/flows/dump"),
            ("POST", "/flows/resume"),
            ("PUT", "/flows/00000000-0000-0000-0000-000000000000"),
            ("POST", "/flows/00000000-0000-0000-0000-000000000000/replay"),
            ("GET", "/processes"),
            ("GET", "/flows/00000000-0000-0000-0000-000000000000/request/content.data"),
            ("GET", "/executable-icon?path=/bin/sh"),
        ],
    )
    def test_nothing_can_be_done_from_the_interface(self, showing: Proxy, method: str, target: str) -> None:
        """No replay, no edit, no option, no script, no file: also not for somebody with the password."""
        body = json.dumps({"ssl_insecure": True})
        answer = ask_web(showing, target, method=method, headers={"Content-Type": "application/json"}, body=body)
        assert answer.status == 405
        options = json.loads(ask_web(showing, "/options").body)
        assert options["ssl_insecure"]["value"] is False

    def test_the_list_can_be_emptied(self, lab: Lab, start_proxy: StartProxy) -> None:
        """Which makes the next pull easy to see."""
        proxy = debug_proxy(lab, start_proxy).start()
        proxy.client().get(f"https://{lab.noauth.name}/v2/")
        assert len(shown_flows(proxy)) == 1
        assert ask_web(proxy, "/clear", method="POST", headers=OWN_PAGE, body="").status in (200, 204)
        assert shown_flows(proxy) == []
        proxy.client().get(f"https://{lab.noauth.name}/v2/")
        assert len(shown_flows(proxy)) == 1


class TestThroughTheProxy:
    """CVE-2025-23217: the interface trusted this machine, and the proxy is on this machine."""

    def test_the_interface_is_not_reached_through_the_proxy(self, lab: Lab, start_proxy: StartProxy) -> None:
        """CONNECT and absolute requests to it are refused under every name, also those that the operator trusts."""
        own = own_host(lab)
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_HUB": "true"})
        proxy.settings["TRUSTED_HOSTS"] += f" {own} localhost me.lab.test web.lab.test"
        proxy.settings["UPSTREAM_MAPPINGS"] += f" me.lab.test={own} web.lab.test={own}:{WEB_PORT}"
        proxy.start()
        assert ask_web(proxy, "/flows").status == 200
        for port in (WEB_PORT, HUB_WEB_PORT):
            for name in (own, *MACHINE_NAMES, "me.lab.test"):
                authority = f"{name}:{port}"
                head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
                assert parse_response(ask(proxy.address, head)).status == 403, authority
                answer = proxy.request(
                    "GET", f"http://{authority}/flows", {"Authorization": f"Bearer {DEBUG_PASSWORD}"}
                )
                assert answer.status in (403, 502), authority
                assert b"mitmproxy" not in answer.body.lower(), authority
        mapped = b"CONNECT web.lab.test:443 HTTP/1.1\r\nHost: web.lab.test:443\r\n\r\n"
        assert parse_response(ask(proxy.address, mapped)).status == 403
        assert proxy.request("GET", "http://web.lab.test/flows").status in (403, 502)
