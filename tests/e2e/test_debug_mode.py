"""Debug mode: every request is seen in mitmweb, without secrets and bodies."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from lab.addresses import Address
from lab.browser import Browser
from lab.debug_mode import (
    DEBUG_PASSWORD,
    HUB_WEB_PORT,
    OWN_PAGE,
    WEB_PORT,
    ask_web,
    debug_proxy,
    shown_flows,
    wait_for_comment,
)
from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.http_client import Client, ProxyRoute
from lab.lab import Lab
from lab.origin import Reply
from lab.programs import Program, accepts_connections
from lab.proxy import Proxy
from lab.wait import wait_until

pytestmark = pytest.mark.e2e

MITMWEB = Path(sys.executable).with_name("mitmweb")
ENTRY = Path(__file__).parents[2] / "addons/registry_proxy.py"
LAB_PASSWORD = "secret"  # alice's
BASIC = base64.b64encode(f"alice:{LAB_PASSWORD}".encode()).decode()


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
        browser.wait_for("input[type=password]")
        assert "debug/seen" not in browser.source
        browser.fill_in("input[type=password]", "wrong password")
        browser.wait_for("input[type=password]")
        assert "debug/seen" not in browser.source

        browser.fill_in("input[type=password]", DEBUG_PASSWORD)
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
        seen = seen.replace("credential of 'alice' for ", "")  # the log says at start whose logins work

        for masked in ("Basic ***", "Bearer ***", "verify=***", "expires=***", "service=token.lab.test"):
            assert masked in seen, masked
        secrets = (
            BASIC,
            LAB_PASSWORD,
            "hunter2",
            "eyJ",
            DEBUG_PASSWORD,
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
            wait_until(lambda: accepts_connections(Address(proxy.address.host, WEB_PORT)), "the port is in use")
            completed = proxy.start_refused()
        finally:
            blocker.kill()
            blocker.wait()
        assert f"port {WEB_PORT} on {proxy.address.host} is in use" in completed.stderr

    def test_a_debugged_proxy_ends_in_time(self, lab: Lab, start_proxy: StartProxy) -> None:
        """TERM ends it as it ends mitmdump, with both ports open."""
        proxy = debug_proxy(lab, start_proxy, {"DEBUG_HUB": "true"}).start()
        assert proxy.stop() == 0
