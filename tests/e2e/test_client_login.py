"""`PROXY_AUTH`: who may use the proxy."""

import base64
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import bcrypt
import pytest

from lab.addresses import Address
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.programs import LabError
from lab.proxy import Proxy
from lab.raw_http import ask, connected, parse_response
from lab.skopeo import Skopeo
from regproxy.settings import SettingsError, load_settings

pytestmark = pytest.mark.e2e

REGISTRY = "origin.lab.test"


def field(login: str) -> dict[str, str]:
    return {"Proxy-Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def connect_status(proxy: Proxy, login: str | None) -> int:
    lines = [f"CONNECT {REGISTRY}:443 HTTP/1.1", f"Host: {REGISTRY}:443"]
    lines += [f"{name}: {text}" for name, text in field(login).items()] if login else []
    with connected(proxy.address) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(12).split()[1])


@pytest.fixture(scope="module")
def closed_proxy(start_module_proxy: StartProxy, tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    """Start a proxy for Alice, whose password is in clear, and Bob, whose password is hashed."""
    hashed = bcrypt.hashpw(b"bobs", bcrypt.gensalt(4)).decode()
    logins = tmp_path_factory.mktemp("logins") / "logins"
    logins.write_text(f"# two of them\nalice:s3:cret\nbob:{hashed}\n")
    return start_module_proxy({"PROXY_AUTH_FILE": str(logins)})


@pytest.mark.parametrize(
    ("login", "status"),
    [
        (None, 407),
        ("alice:s3:cret", 200),
        ("alice:s3", 407),
        ("alice:", 407),
        ("eve:s3:cret", 407),
        ("bob:bobs", 200),
        ("bob:alices", 407),
        ("bob:" + "x" * 100, 407),
    ],
)
def test_a_tunnel_needs_a_login(closed_proxy: Proxy, login: str | None, status: int) -> None:
    """The right one, twice: what was checked once is remembered, and what was wrong stays so."""
    assert [connect_status(closed_proxy, login) for _ in range(2)] == [status, status]


def test_the_refusal_says_how(closed_proxy: Proxy) -> None:
    """With the challenge that clients look for."""
    answer = parse_response(ask(closed_proxy.address, f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode()))

    assert answer.status == 407
    assert answer.header("Proxy-Authenticate").startswith('Basic realm="registry-proxy"')
    assert b"HTTPS_PROXY" in answer.body


def test_a_client_that_logs_in_pulls(closed_proxy: Proxy, origin: Origin) -> None:
    """And the registry sees nothing of it."""
    origin.serve("/v2/", Reply(b"{}"))
    context = ssl.create_default_context(cafile=str(closed_proxy.ca_file))
    connection = HTTPSConnection(*closed_proxy.address, context=context)
    connection.set_tunnel(REGISTRY, 443, headers=field("alice:s3:cret"))
    connection.request("GET", "/v2/")
    with connection.getresponse() as response:
        assert response.status == 200
    connection.close()
    assert origin.log.requests()[0].authorization == ""
    assert "s3:cret" not in closed_proxy.log


@pytest.mark.parametrize("target", [f"http://{REGISTRY}/v2/", "http://down.example/"])
def test_a_forwarded_request_needs_a_login_too(closed_proxy: Proxy, target: str) -> None:
    """Whether it is for a registry or not."""
    refused = closed_proxy.request("GET", target)

    assert (refused.status, bool(refused.header("Proxy-Authenticate"))) == (407, True)
    assert closed_proxy.request("GET", target, field("alice:s3:cret")).status != 407


def test_the_proxys_own_pages_are_open(closed_proxy: Proxy) -> None:
    """A client gets the CA before it can log in anywhere."""
    assert [closed_proxy.request("GET", path).status for path in ("/", "/ca.crt", "/readyz")] == [200, 200, 200]


def test_a_bad_login_in_the_list_does_not_start() -> None:
    """A proxy must not be more open than it looks, nor tell what it could not read."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"PROXY_AUTH": "alice:s3cret bob:$apr1$s3cret s3cret"})

    assert str(caught.value).count("PROXY_AUTH: entry") == 2
    assert "s3cret" not in str(caught.value)


def test_a_real_client_logs_in_by_the_proxys_url(
    lab: Lab, closed_proxy: Proxy, build_image: MakeImage, tmp_path: Path
) -> None:
    """`HTTPS_PROXY=http://user:password@proxy:port`, as every client knows it; without it there is no pull."""
    lab.push(build_image(), "login/image")
    reference = f"{lab.noauth.name}/login/image:latest"
    address = Address(f"bob:bobs@{closed_proxy.address.host}", closed_proxy.address.port)

    Skopeo(tmp_path / "bob", closed_proxy.ca_file, address).pull(reference, tmp_path / "pulled")

    with pytest.raises(LabError, match=r"407|Proxy Authentication Required"):
        closed_proxy.skopeo("nobody").pull(reference, tmp_path / "refused")
