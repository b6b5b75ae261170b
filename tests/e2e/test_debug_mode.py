"""Debug mode: every request is seen in mitmweb, by those who have the password, without a secret, and nobody else."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from lab.addresses import Address
from lab.browser import Browser
from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import Client, ProxyRoute, Response
from lab.image import make_image
from lab.lab import Lab
from lab.origin import Reply
from lab.programs import Program
from lab.proxy import Proxy
from lab.raw_http import ask, parse_response

pytestmark = pytest.mark.e2e

MITMWEB = Path(sys.executable).with_name("mitmweb")
ENTRY = Path(__file__).parents[2] / "addons/registry_proxy.py"
WEB_PORT = 8081
HUB_WEB_PORT = 8082
PASSWORD = "correct horse battery staple"
LAB_PASSWORD = "secret"  # alice's
MACHINE_NAMES = ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "127.1")  # noqa: S104
OWN_PAGE = {  # the interface compares field and cookie
    "Content-Type": "application/json",
    "Cookie": f"_mitmproxy_xsrf={'00' * 16}",
    "X-XSRFToken": "00" * 16,
}
BASIC = base64.b64encode(f"alice:{LAB_PASSWORD}".encode()).decode()


def own_host(lab: Lab, number: int = 40) -> str:
    """Return an address of the lab's block that no server of it has."""
    return f"{lab.noauth.address.host.rpartition('.')[0]}.{number}"


def debug_proxy(
    lab: Lab, start_proxy: StartProxy, settings: Mapping[str, str] | None = None, *, host_number: int = 40
) -> Proxy:
    """Return a proxy in debug mode, not started, at an address of its own: the ports of the interface are fixed."""
    proxy = start_proxy({"DEBUG": "true", **(settings or {})}, start=False)
    host = own_host(lab, host_number)
    proxy.address = Address(host, proxy.address.port)
    proxy.settings.setdefault("DEBUG_PASSWORD", PASSWORD)
    proxy.settings["LISTEN_HOST"] = host
    return proxy


@contextlib.contextmanager
def class_proxy(lab: Lab, directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """Yield a running proxy in debug mode for the tests of a class."""

    def make(settings: Mapping[str, str] | None = None, *, start: bool = True) -> Proxy:
        proxy = lab.proxy(directory / "proxy", settings)
        return proxy.start() if start else proxy

    with debug_proxy(lab, make, settings, host_number=41) as running:
        yield running


def ask_web(
    proxy: Proxy,
    target: str,
    *,
    method: str = "GET",
    password: str | None = PASSWORD,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    port: int = WEB_PORT,
) -> Response:
    """Return the interface's answer to one request, which has the password unless it is None."""
    login = {} if password is None else {"Authorization": f"Bearer {password}"}
    connection = HTTPConnection(proxy.address.host, port, timeout=20)
    try:
        connection.request(method, target, body, {**login, **(headers or {})})
        with connection.getresponse() as response:
            return Response(response.status, response.headers, response.read())
    finally:
        connection.close()


def shown_flows(proxy: Proxy) -> list[dict[str, Any]]:
    """Return the list of flows as the interface has it."""
    flows = json.loads(ask_web(proxy, "/flows").body)
    assert isinstance(flows, list)
    return flows


def wait_for_comment(proxy: Proxy, pattern: str) -> dict[str, Any]:
    """Return the first flow with a comment like `pattern` whose answer has ended."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        for flow in shown_flows(proxy):
            if re.search(pattern, flow["comment"]) and flow.get("response", {}).get("timestamp_end"):
                return flow
        time.sleep(0.05)
    raise AssertionError(f"no flow says {pattern!r}: {[flow['comment'] for flow in shown_flows(proxy)]}")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Yield a browser with a new profile."""
    running = Browser(tmp_path / "chromium")
    yield running
    running.close()


class TestBrowser:
    def test_a_person_with_the_password_sees_a_pull_and_its_hits(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, browser: Browser
    ) -> None:
        """Before the login there is a password field and nothing else; behind it the pulls come up while one looks."""
        lab.push(build_image(), "debug/seen")
        proxy = debug_proxy(lab, start_proxy).start()
        reference = f"{lab.noauth.name}/debug/seen:latest"
        proxy.skopeo("first").pull(reference, tmp_path / "first")

        browser.open(f"http://{proxy.address.host}:{WEB_PORT}/")
        assert browser.texts("input[type=password]") == [""]
        assert "debug/seen" not in browser.source
        browser.fill_in("input[type=password]", "wrong password")
        assert browser.texts("input[type=password]") == [""]
        assert "debug/seen" not in browser.source

        browser.fill_in("input[type=password]", PASSWORD)
        browser.wait_for_text("tr", "MISS blob-by-digest noauth.lab.test/debug/seen")
        assert not any("HIT blob" in row for row in browser.texts("tr"))
        proxy.skopeo("second").pull(reference, tmp_path / "second")
        browser.wait_for_text("tr", "HIT blob-by-digest noauth.lab.test/debug/seen")
        row = browser.wait_for_text("tr", "REVALIDATED manifest-default-disabled noauth.lab.test/debug/seen:latest")
        assert "/v2/debug/seen/manifests/latest" in row


class TestFlows:
    def test_bodies_are_not_kept(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Neither of a miss nor of a hit, neither of a manifest nor of a blob."""
        lab.push(build_image(), "debug/bodies")
        proxy = debug_proxy(lab, start_proxy, {"ENABLE_MANIFEST_CACHE": "true"}).start()
        for pull in ("first", "second"):
            proxy.skopeo(pull).pull(f"{lab.noauth.name}/debug/bodies:latest", tmp_path / pull)
        hits = [wait_for_comment(proxy, f"^HIT {kind}") for kind in ("manifest-default", "blob-by-digest")]
        fields = [{name.lower(): value for name, value in hit["response"]["headers"]} for hit in hits]
        assert all(int(each["content-length"]) > 0 for each in fields)
        lengths = {(flow["request"]["contentLength"], flow["response"]["contentLength"]) for flow in shown_flows(proxy)}
        assert lengths == {(None, None)}

    def test_a_cut_answer_is_shown_with_its_reason(self, lab: Lab, start_proxy: StartProxy) -> None:
        """What did not work is what one looks for in debug mode."""
        proxy = debug_proxy(lab, start_proxy).start()
        assert proxy.client().get(f"https://{lab.noauth.name}/v2/../x").status == 400
        origin = "https://origin.lab.test/v2/no/one/manifests/latest"  # nobody listens there
        assert proxy.client().get(origin).status == 502
        assert "cannot be reached" in wait_for_comment(proxy, "no/one:latest")["comment"]

    def test_own_upstream_requests_are_shown_when_asked_for(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """With DEBUG_HUB each hop of a redirect is a flow of its own, on port 8082 too; without it there is none."""
        lab.push(build_image(), "debug/hops")
        reference = f"{lab.redirect.name}/debug/hops:latest"
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_HUB": "true"}).start()
        proxy.skopeo().pull(reference, tmp_path / "pulled")
        upstream = [flow for flow in shown_flows(proxy) if flow["comment"] == "upstream"]
        seen = {(flow["request"]["host"], flow["response"]["status_code"], flow["marked"]) for flow in upstream}
        assert seen >= {("redirect.lab.test", 307, "⬆"), ("cdn.lab.test", 200, "⬆")}
        assert {flow["server_conn"]["peername"][0] for flow in upstream if flow["server_conn"]["peername"]} <= {
            address.host for address in lab.addresses.values()
        }
        assert json.loads(ask_web(proxy, "/flows", port=HUB_WEB_PORT).body) == shown_flows(proxy)
        assert ask_web(proxy, "/flows", password=None, port=HUB_WEB_PORT).status == 403
        proxy.stop()

        proxy.settings["DEBUG_HUB"] = "false"
        proxy.start()
        proxy.skopeo("second").pull(reference, tmp_path / "second")
        wait_for_comment(proxy, "^HIT blob")
        assert not [flow for flow in shown_flows(proxy) if flow["comment"] == "upstream"]
        with pytest.raises(ConnectionRefusedError):
            ask_web(proxy, "/", port=HUB_WEB_PORT)

    def test_upstreams_are_verified_in_debug_mode(self, lab: Lab, start_proxy: StartProxy) -> None:
        """The predecessor turned verification off; here a registry with an unknown CA is no registry."""
        lab.noauth  # noqa: B018 - starts it
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_HUB": "true", "UPSTREAM_CA_FILE": ""}).start()
        assert proxy.client().get(f"https://{lab.noauth.name}/v2/debug/x/manifests/latest").status == 502
        assert "not trusted" in wait_for_comment(proxy, "debug/x:latest")["comment"]
        (upstream,) = [flow for flow in shown_flows(proxy) if flow["comment"] == "upstream"]
        assert "response" not in upstream
        assert "certificate" in upstream["error"]["msg"].lower()


class TestSecrets:
    def test_no_secret_is_shown_or_exported_and_all_of_them_work(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Logins, tokens and signatures go upstream as they are, and are masked in every view of the interface."""
        lab.push(build_image(), "private/debug")
        settings = {
            "AUTH_REGISTRIES": f"auth.lab.test:alice:{LAB_PASSWORD}",
            "DEBUG_HUB": "true",
            "DEBUG_NGINX": "true",
        }
        proxy = debug_proxy(lab, start_proxy, settings).start()
        own_login = f"alice:{LAB_PASSWORD}"
        proxy.skopeo("own").pull(f"{lab.basic.name}/private/debug:latest", tmp_path / "own", credentials=own_login)
        proxy.skopeo("token").pull(f"{lab.token.name}/private/debug:latest", tmp_path / "token")
        lab.push(build_image("another"), "private/redirected")
        proxy.skopeo("redirect").pull(f"{lab.redirect.name}/private/redirected:latest", tmp_path / "redirect")
        form = f"grant_type=password&service=token.lab.test&client_id=x&username=alice&password={LAB_PASSWORD}"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "session=hunter2"}
        proxy.client().request("POST", "https://auth.lab.test/token", headers, form.encode())

        flows = shown_flows(proxy)
        pages = [ask_web(proxy, page).body.decode("utf-8", "replace") for page in ("/flows", "/flows/dump", "/events")]
        pages += [self.as_curl(proxy, flow["id"]) for flow in flows]
        for flow in flows:
            for message in ("request", "response"):
                pages.append(ask_web(proxy, f"/flows/{flow['id']}/{message}/content/auto").body.decode())
        seen = "\n".join(pages).replace(str(tmp_path), "")  # it has this test's name

        for masked in ("Basic ***", "Bearer ***", "verify=***", "expires=***", "service=token.lab.test"):
            assert masked in seen, masked
        secrets = (
            BASIC,
            LAB_PASSWORD,
            "hunter2",
            "eyJ",
            PASSWORD,
            "verify=GET",
            "verify=HEAD",
            "access_token",
            "alice",
        )
        assert [secret for secret in secrets if secret in seen] == []
        assert re.findall(r"(?:Basic|Bearer) (?!\*\*\*|realm)\S+", seen) == []

    def as_curl(self, proxy: Proxy, flow_id: str) -> str:
        """Return what the interface's "copy as curl" gives."""
        body = json.dumps({"arguments": ["curl", f"@{flow_id}"]})
        exported = ask_web(proxy, "/commands/export", method="POST", headers=OWN_PAGE, body=body)
        assert exported.status == 200, exported.body
        return str(json.loads(exported.body)["value"])

    def test_an_exported_file_has_the_flows_and_no_body(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """What is downloaded can be read by mitmproxy elsewhere, and is masked as the list is."""
        lab.push(build_image(), "debug/export")
        proxy = debug_proxy(lab, start_proxy).start()
        login = f"alice:{LAB_PASSWORD}"
        proxy.skopeo().pull(f"{lab.basic.name}/debug/export:latest", tmp_path / "pulled", credentials=login)
        file = tmp_path / "flows"
        file.write_bytes(ask_web(proxy, "/flows/dump").body)
        with file.open("rb") as stream:
            flows = [flow for flow in FlowReader(stream).stream() if isinstance(flow, HTTPFlow)]
        assert "Basic ***" in {flow.request.headers.get("Authorization") for flow in flows}
        assert {flow.request.raw_content for flow in flows} == {None}


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
        file.write_text(f"{PASSWORD}\n")
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_PASSWORD": "", "DEBUG_PASSWORD_FILE": str(file)}).start()
        assert ask_web(proxy, "/flows").status == 200
        assert ask_web(proxy, "/flows", password="wrong").status == 403
        assert PASSWORD not in proxy.log
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
                answer = proxy.request("GET", f"http://{authority}/flows", {"Authorization": f"Bearer {PASSWORD}"})
                assert answer.status in (403, 502), authority
                assert b"mitmproxy" not in answer.body.lower(), authority
        mapped = b"CONNECT web.lab.test:443 HTTP/1.1\r\nHost: web.lab.test:443\r\n\r\n"
        assert parse_response(ask(proxy.address, mapped)).status == 403
        assert proxy.request("GET", "http://web.lab.test/flows").status in (403, 502)


class TestPrograms:
    def test_mitmweb_by_hand_is_debug_mode_too(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """`mitmweb -s addons/registry_proxy.py`, without DEBUG: same stack, same password rule, mitmweb's own port."""
        lab.push(build_image(), "debug/bare")
        proxy = debug_proxy(lab, start_proxy, {"DEBUG": ""})
        web = ["--web-host", proxy.address.host, "--web-port", "8083"]
        environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8", **proxy.settings}
        bare = Program(
            "mitmweb",
            [str(MITMWEB), "-s", str(ENTRY), *web],
            tmp_path,
            environment=environment,
            listens_on=proxy.address,
        )
        try:
            bare.start()
            proxy.skopeo().pull(f"{lab.noauth.name}/debug/bare:latest", tmp_path / "pulled")
            assert b"MISS blob-by-digest" in ask_web(proxy, "/flows", port=8083).body
            assert ask_web(proxy, "/flows", password=None, port=8083).status == 403
            assert bare.stop() == 0
        finally:
            bare.kill()

    def test_a_second_port_in_use_ends_mitmweb_with_a_line(
        self, lab: Lab, start_proxy: StartProxy, tmp_path: Path
    ) -> None:
        """By hand nothing looks at the ports before the start."""
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_HUB": "true"})
        environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8", **proxy.settings}
        with socket.create_server((proxy.address.host, HUB_WEB_PORT)):
            ended = subprocess.run(
                [str(MITMWEB), "-s", str(ENTRY)],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        assert ended.returncode == 1
        assert "port 8082, the second of the web interface: Address already in use" in ended.stderr

    def test_mitmdump_says_that_it_cannot(self, lab: Lab, start_proxy: StartProxy, tmp_path: Path) -> None:
        """A setting without effect is not passed over in silence."""
        proxy = debug_proxy(lab, start_proxy)
        environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8", **proxy.settings}
        command = [str(MITMWEB.with_name("mitmdump")), "-s", str(ENTRY)]
        bare = Program("mitmdump", command, tmp_path, environment=environment, listens_on=proxy.address)
        try:
            bare.start()
            assert bare.stop() == 0
            assert "DEBUG and DEBUG_HUB need mitmweb" in bare.log_text()
        finally:
            bare.kill()

    @pytest.mark.parametrize("debug", ["false", "true"], ids=["mitmdump", "mitmweb"])
    @pytest.mark.parametrize("debug_nginx", ["false", "true"])
    def test_debug_nginx_is_the_level_debug_in_both_programs(
        self, lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin, debug: str, debug_nginx: str
    ) -> None:
        """A line of mitmproxy about the end of a tunnel has that level; it is printed with the setting only."""
        edge = start_origin("edge.lab.test")
        edge.serve("/page", Reply(b"untouched"))
        proxy = debug_proxy(lab, start_proxy, {"DEBUG": debug, "DEBUG_NGINX": debug_nginx}).start()
        client = Client(ProxyRoute(proxy.address, lab.pki.ca_file))
        assert client.get("https://edge.lab.test/page").body == b"untouched"
        proxy.stop()
        assert ("half-closing" in proxy.log) == (debug_nginx == "true")

    def test_a_port_in_use_is_told(self, lab: Lab, start_proxy: StartProxy) -> None:
        """One line names port and setting, as for the proxy's own port."""
        proxy = debug_proxy(lab, start_proxy)
        blocker = subprocess.Popen(
            [sys.executable, "-m", "http.server", str(WEB_PORT), "--bind", proxy.address.host],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline_s = time.monotonic() + 20
            while (completed := proxy.start_refused()).returncode == 0 and time.monotonic() < deadline_s:
                pass
        finally:
            blocker.kill()
            blocker.wait()
        assert f"port {WEB_PORT} on {proxy.address.host} is in use" in completed.stderr

    def test_a_debugged_proxy_ends_in_time(self, lab: Lab, start_proxy: StartProxy) -> None:
        """TERM ends it as it ends mitmdump, with both ports open."""
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_HUB": "true"}).start()
        assert proxy.stop() == 0
