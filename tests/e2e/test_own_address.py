"""The proxy's own address: what people, health checks and set-up scripts find there (contract section 1.3)."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.http_client import Response
from lab.lab import Lab
from lab.programs import find_program
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

GREETING = b"docker-registry-proxy: The docker caching proxy is working!"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield one proxy for all tests: nothing that is asked of its own address changes it."""
    with lab.proxy(tmp_path_factory.mktemp("own-address")) as running:
        yield running


class TestPages:
    def test_the_root_is_the_predecessors_text(self, proxy: Proxy) -> None:
        """Health checks that look for the predecessor's words at `/` find them."""
        answer = proxy.request("GET", "/")
        assert (answer.status, answer.body) == (200, GREETING)
        assert answer.header("Content-Type").partition(";")[0] == "text/plain"

    def test_a_head_of_the_root_is_200(self, proxy: Proxy) -> None:
        """`curl -I /` gets the length of the text and no body."""
        answer = proxy.request("HEAD", "/")
        assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", str(len(GREETING)))

    def test_a_browser_gets_a_page(self, proxy: Proxy) -> None:
        """Except at `/`, the dashboard, it says how to use the proxy, by the address that the browser used."""
        answer = proxy.request("GET", "/how-to", BROWSER)
        assert (answer.status, answer.header("Content-Type")) == (200, "text/html; charset=utf-8")
        page = answer.body.decode()
        assert f"http://{proxy.address}/setup/systemd" in page
        assert 'href="/ca.crt"' in page

    def test_a_host_field_cannot_write_html(self, proxy: Proxy) -> None:
        """What the client says of itself is shown as text."""
        answer = proxy.request("GET", "/how-to", {**BROWSER, "X-Forwarded-Host": "a<script>alert(1)</script>"})
        assert b"<script" not in answer.body

    @pytest.mark.parametrize("path", ["/nothing", "/robots.txt", "/%2e%2e/x", "//", "/_catalog?x=1"])
    def test_an_unknown_path_is_greeted_too(self, proxy: Proxy, path: str) -> None:
        """As with the predecessor, any path is a health check."""
        answer = proxy.request("GET", path)
        assert (answer.status, answer.body) == (200, GREETING)

    @pytest.mark.parametrize("path", ["/healthz", "/readyz"])
    def test_health_and_readiness_are_200(self, proxy: Proxy, path: str) -> None:
        """A probe needs the status only, by GET or by HEAD."""
        answers = [proxy.request(method, path) for method in ("GET", "HEAD")]
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].body
        assert answers[1].body == b""

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_nothing_can_be_written(self, proxy: Proxy, method: str) -> None:
        """A writing method is 405, whatever the path, and its body is not waited for."""
        for path in ("/", "/ca.crt", "/v2/"):
            assert proxy.request(method, path, body=b"x" * 1000).status == 405

    def test_own_requests_are_not_in_the_access_log(self, proxy: Proxy) -> None:
        """Probes every few seconds would bury the pulls."""
        proxy.request("GET", "/healthz")
        assert '"uri":"/healthz"' not in proxy.log


class TestCertificate:
    def test_the_certificate_is_the_file_to_the_byte(self, proxy: Proxy) -> None:
        """`/ca.crt` is what clients must trust, under the type that browsers import."""
        get, head = proxy.request("GET", "/ca.crt"), proxy.request("HEAD", "/ca.crt")
        assert get.body == proxy.ca_file.read_bytes()
        assert head.header("Content-Length") == str(len(get.body))
        for answer in (get, head):
            assert (answer.status, answer.header("Content-Type")) == (200, "application/x-x509-ca-cert")
        assert b"PRIVATE" not in get.body

    def test_the_key_is_not_to_be_had(self, proxy: Proxy) -> None:
        """No path beside the certificate leads to the key."""
        key = (proxy.ca_directory / "ca.key").read_bytes()
        for path in ("/ca.key", "/ca/ca.key", "/ca.crt/../ca.key", "/%2e%2e/ca/ca.key"):
            assert key not in proxy.request("GET", path).body


class TestSystemdScript:
    @pytest.fixture
    def answer(self, proxy: Proxy) -> Response:
        """Return the proxy's answer to the script's usual address."""
        return proxy.request("GET", "/setup/systemd")

    @pytest.fixture
    def script(self, answer: Response) -> str:
        """Return the script."""
        return answer.body.decode()

    def test_it_is_text_with_one_content_type(self, answer: Response) -> None:
        """The predecessor sent two, which some proxies refuse."""
        assert answer.status == 200
        assert answer.headers.get_all("Content-Type") == ["text/plain; charset=utf-8"]

    @pytest.mark.parametrize("path", ["/setup/systemd/", "/setup/systemd?x=1", "/setup/systemd/anything"])
    def test_the_address_is_a_prefix(self, proxy: Proxy, script: str, path: str) -> None:
        """The predecessor gave the script for everything below."""
        assert proxy.request("GET", path).body.decode() == script

    def test_exactly_one_line_has_the_environment(self, proxy: Proxy, script: str) -> None:
        """`sed '/Environment/ s/$/ .../'` changes this line only, so it must end with its quote."""
        (line,) = [line for line in script.splitlines() if "Environment" in line]
        assert line == f'Environment="HTTPS_PROXY=http://{proxy.address}/"'

    def test_docker_is_the_only_unit(self, script: str) -> None:
        """`sed s/docker.service/containerd.service/g` makes it a script for containerd."""
        assert set(re.findall(r"[\w@-]+\.service\b", script)) == {"docker.service"}

    def test_the_known_sed_recipes_work(self, script: str) -> None:
        """The recipe of the predecessor's README for kind gives a script for containerd with its NO_PROXY."""
        recipe = ["sed", "-e", r"s/docker\.service/containerd\.service/g", "-e", '/Environment/ s/$/ "NO_PROXY=a,b"/']
        changed = subprocess.run(recipe, input=script, capture_output=True, text=True, check=True).stdout
        assert "docker.service" not in changed
        assert changed.count("containerd.service") == script.count("docker.service")
        (line,) = [line for line in changed.splitlines() if "Environment" in line]
        assert re.fullmatch(r'Environment="HTTPS_PROXY=http://[^"]*/" "NO_PROXY=a,b"', line)
        subprocess.run(["sh", "-n"], input=changed, text=True, check=True)

    def test_it_does_the_predecessors_steps_in_order(self, proxy: Proxy, script: str) -> None:
        """Check for systemd, drop-in, certificate, its registration, reload, restart: a known patch finds its place."""
        steps = (
            "/etc/systemd ]",
            "/etc/systemd/system/docker.service.d/http-proxy.conf",
            f"http://{proxy.address}/ca.crt",
            "/usr/share/ca-certificates/docker_registry_proxy.crt",
            "/etc/ca-certificates.conf",
            "update-ca-certificates --fresh",
            "systemctl daemon-reload",
            "systemctl restart docker.service",
            "echo ",
        )
        position = 0
        for step in steps:
            position = script.find(step, position)
            assert position >= 0, step

    def test_a_shell_reads_it_without_complaint(self, script: str) -> None:
        """Both `sh -n` and shellcheck find nothing."""
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        checked = subprocess.run(
            [find_program("shellcheck"), "--shell=sh", "-"], input=script, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout) == (0, "")

    def test_it_points_docker_at_the_proxy_once(self, proxy: Proxy, script: str, tmp_path: Path) -> None:
        """Run on a host's files, twice: the drop-in, the certificate and one registration are there."""
        (tmp_path / "bin").mkdir()
        for program in ("systemctl", "update-ca-certificates"):
            (tmp_path / "bin" / program).write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/called\n')
            (tmp_path / "bin" / program).chmod(0o755)
        (tmp_path / "etc/systemd/system").mkdir(parents=True)
        (tmp_path / "usr/share/ca-certificates").mkdir(parents=True)
        (tmp_path / "etc/ca-certificates.conf").write_text("mozilla/first.crt\n")
        here = re.sub(r"(?<![\w.])/(etc|usr)/", rf"{tmp_path}/\1/", script)
        here = here.replace("[ -d /etc/systemd ]", f"[ -d {tmp_path}/etc/systemd ]")
        for _ in range(2):
            subprocess.run(
                ["sh"], input=here, text=True, check=True, env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, cwd=tmp_path
            )
        drop_in = tmp_path / "etc/systemd/system/docker.service.d/http-proxy.conf"
        assert drop_in.read_text() == f'[Service]\nEnvironment="HTTPS_PROXY=http://{proxy.address}/"\n'
        certificate = tmp_path / "usr/share/ca-certificates/docker_registry_proxy.crt"
        assert certificate.read_bytes() == proxy.ca_file.read_bytes()
        registered = (tmp_path / "etc/ca-certificates.conf").read_text()
        assert registered == "mozilla/first.crt\ndocker_registry_proxy.crt\n"
        assert (tmp_path / "called").read_text().splitlines() == [
            "update-ca-certificates --fresh",
            "systemctl daemon-reload",
            "systemctl restart docker.service",
        ] * 2

    def test_it_refuses_a_host_without_systemd(self, script: str, tmp_path: Path) -> None:
        """The script ends with 1 and says why, before it has changed anything."""
        here = script.replace("[ -d /etc/systemd ]", f"[ -d {tmp_path}/etc/systemd ]")
        refused = subprocess.run(["sh"], input=here, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert refused.returncode == 1
        assert "systemd" in refused.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("headers", "url"),
        [
            pytest.param({"Host": "cache.example:3128"}, "http://cache.example:3128", id="Host"),
            pytest.param(
                {"Host": "cache.example", "X-Forwarded-Proto": "https"}, "https://cache.example", id="TLS in front"
            ),
            pytest.param(
                {"Host": "127.0.0.1:3128", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "cache.example"},
                "https://cache.example",
                id="TLS in front by another name",
            ),
            pytest.param(
                {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "cache.example, inner.example:80"},
                "https://cache.example",
                id="two fronts",
            ),
            pytest.param({"Host": "[2001:db8::1]:3128"}, "http://[2001:db8::1]:3128", id="IPv6"),
        ],
    )
    def test_it_uses_the_address_that_the_client_used(self, proxy: Proxy, headers: dict[str, str], url: str) -> None:
        """Host and the forwarded fields of a TLS front make the URL of the proxy and of the certificate."""
        script = proxy.request("GET", "/setup/systemd", headers).body.decode()
        assert f'Environment="HTTPS_PROXY={url}/"' in script.splitlines()
        assert f"{url}/ca.crt" in script

    @pytest.mark.parametrize("evil", ['a";reboot;"', "a$(reboot)", "a`reboot`", "a' 'b", "a\\nb"])
    def test_a_host_field_cannot_write_shell(self, proxy: Proxy, evil: str) -> None:
        """A Host that is none is 400; of a forwarded one no quote, blank or substitution gets into the script."""
        assert proxy.request("GET", "/setup/systemd", {"Host": evil}).status == 400
        script = proxy.request("GET", "/setup/systemd", {"X-Forwarded-Host": evil}).body.decode()
        (url,) = re.findall(r'^Environment="HTTPS_PROXY=(.*)/"$', script, re.MULTILINE)
        assert re.fullmatch(r"http://[A-Za-z0-9.:_-]+", url)
        assert set(re.findall(r"http://[^/]*", script)) == {url}
