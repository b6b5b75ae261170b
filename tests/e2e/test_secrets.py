"""The check that every test with a proxy ends with: it finds what it looks for, in the places where it would be."""

import base64
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.registry import PASSWORD, USERNAME
from lab.secrets import files_with_secrets, secrets_in

TOKEN = "eyJhbGciOiJSUzI1NiJ9xx.eyJpc3MiOiJsYWItaXNzdWVyIn0xx.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "secret",
    [
        f"{USERNAME}:{PASSWORD}",
        base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode(),
        TOKEN,
        "registry-proxy." + "x" * 43,
        "hunter2-Zq7",
    ],
)
def test_a_secret_is_found(tmp_path: Path, secret: str) -> None:
    """In the middle of a log line and in the middle of a binary file; what is found is not told whole."""
    assert secrets_in(f'{{"error":"refused {secret} by"}}'.encode()) == [secret[:12] + "..."]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").write_bytes(b"\0\1" + secret.encode() + b"\0")
    (tmp_path / "cache" / "other").write_bytes(b"nothing")
    assert len(files_with_secrets([tmp_path])) == 1


@pytest.mark.e2e
def test_debug_logs_hold_no_secret_either(lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
    """With everything that can be logged logged: logins, right and wrong, in pulls and in token requests.

    The check itself comes when the proxy is stopped, as for every other test.
    """
    lab.push(build_image(), "private/logged")
    settings = {"DEBUG_NGINX": "true", "REGISTRIES": f"{lab.proxy_settings['REGISTRIES']} auth.lab.test"}
    proxy = start_proxy(settings)
    client = proxy.client()
    assert lab.token.name
    login = {"Authorization": "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()}
    scope = "service=token.lab.test&scope=repository:private/logged:pull"
    token = client.get(f"https://auth.lab.test/token?{scope}", login)
    form = f"grant_type=password&username={USERNAME}&password=hunter2-Zq7&{scope}".encode()
    fields = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = client.request("POST", "https://auth.lab.test/token", fields, form)
    assert (token.status, refused.status) == (200, 401)
    url = f"https://{lab.token.name}/v2/private/logged/manifests/latest"
    for authorization in (login["Authorization"], "Basic !!!hunter2-Zq7", f"Bearer {TOKEN}", "hunter2-Zq7"):
        assert client.get(url, {"Authorization": authorization}).status in (400, 401)
    with lab.token.stopped():
        assert client.get(url, login).status >= 400
    proxy.stop()
    assert "manifests/latest" in proxy.log
