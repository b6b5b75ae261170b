"""The texts for people who set a client up, and the address they are reached by."""

import subprocess

import pytest
from mitmproxy import http

from regproxy.engine.http_layer import Door
from regproxy.stack.core import Core
from regproxy.stack.setup_pages import index_page, systemd_script
from regproxy.stack.setup_responder import GREETING, SetupResponder
from unit.stack.conftest import make_flow

BASE = "http://proxy.lan:3128"


def get(
    core: Core, path: str, method: str = "GET", fields: dict[str, str] | None = None, door: Door = Door.OWN
) -> http.Response | None:
    headers = {"Host": "proxy.lan:3128"} | (fields or {})
    flow = make_flow(method, "proxy.lan", 3128, path, headers, door=door, scheme="http")
    SetupResponder(core).requestheaders(flow)
    return flow.response


def check(script: str) -> None:
    """Let a shell read a script without running it."""
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def text(response: http.Response | None) -> str:
    assert response is not None
    return (response.raw_content or b"").decode()


def test_the_script_is_a_shell_script_that_names_this_proxy() -> None:
    """`sh -n` takes it, and every address in it is the proxy's."""
    script = systemd_script(BASE)

    check(script)
    assert f'Environment="HTTPS_PROXY={BASE}/"' in script
    assert f"{BASE}/ca.crt" in script
    assert "docker_registry_proxy.crt" in script
    assert "{{" not in script
    assert script.endswith("\n")


def test_the_page_escapes_what_a_client_says() -> None:
    """A base URL is made from a request's fields."""
    page = index_page('http://x"><script>')

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("path", "fields", "status", "kind", "part"),
    [
        ("/", {}, 200, "text/plain", GREETING),
        ("/anything", {}, 200, "text/plain", GREETING),
        ("/", {"Accept": "text/html,*/*"}, 200, "text/html", f"{BASE}/setup/systemd"),
        ("/ca.crt", {}, 200, "application/x-x509-ca-cert", "-----BEGIN CERTIFICATE-----"),
        ("/setup/systemd", {}, 200, "text/plain", f"{BASE}/ca.crt"),
        ("/healthz", {}, 200, "text/plain", "ok\n"),
        ("/readyz?verbose=1", {}, 200, "text/plain", "ready\n"),
    ],
)
async def test_the_proxys_own_address_answers(
    *, core: Core, path: str, fields: dict[str, str], status: int, kind: str, part: str
) -> None:
    """Each path with its status, type and text; a HEAD gets the same length and no body."""
    response = get(core, path, fields=fields)
    head = get(core, path, "HEAD", fields)

    assert response is not None
    assert response.status_code == status
    assert response.headers["content-type"].startswith(kind)
    assert part in text(response)
    assert head is not None
    assert head.headers["content-length"] == response.headers["content-length"]
    assert status == 404 or not head.raw_content


async def test_the_ca_is_the_file(core: Core) -> None:
    """Byte for byte, and never the key."""
    assert text(get(core, "/ca.crt")).encode() == core.settings.ca_certificate_file.read_bytes()
    assert "PRIVATE" not in text(get(core, "/ca.crt"))


def test_before_the_start_it_is_alive_and_not_ready() -> None:
    """A load balancer waits; the CA is not there yet."""
    core = Core()

    assert text(get(core, "/healthz")) == "ok\n"
    assert text(get(core, "/readyz")) == "starting\n"
    assert text(get(core, "/ca.crt")) == GREETING


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_only_reads_are_answered(core: Core, method: str) -> None:
    """Anything else is a 405."""
    response = get(core, "/", method)

    assert response is not None
    assert response.status_code == 405


@pytest.mark.parametrize("door", [Door.FORWARD, Door.TUNNEL])
async def test_requests_to_others_are_left_alone(core: Core, door: Door) -> None:
    """The proxy's own pages are at its own address alone."""
    assert get(core, "/ca.crt", door=door) is None


@pytest.mark.parametrize(
    ("fields", "base"),
    [
        ({}, BASE),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cache.example"}, "https://cache.example"),
        ({"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "a.example, b.example"}, "https://a.example"),
        ({"X-Forwarded-Proto": "gopher"}, BASE),
        ({"Host": "[2001:db8::1]:3128"}, "http://[2001:db8::1]:3128"),
        ({"Host": 'x";rm -rf $(y)`z`\\'}, "http://xrm-rfyz"),
        ({"X-Forwarded-Host": "a\nb'c"}, "http://abc"),
    ],
)
async def test_the_script_names_the_address_that_the_client_used(core: Core, fields: dict[str, str], base: str) -> None:
    """Also behind a TLS front; a character that a shell would read as more than text is dropped."""
    script = text(get(core, "/setup/systemd", fields=fields))

    assert f"{base}/ca.crt" in script
    check(script)
