"""No secret is in what the proxy says of itself, whatever logins were used."""

import base64
import json

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.http_client import Client, ProxyRoute
from lab.lab import Lab
from lab.own_pages import own_pages
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME
from lab.secrets import secrets_in

pytestmark = pytest.mark.e2e

ADMIN_TOKEN = "hunter2-Zq7-opens-the-admin-api"
PROXY_LOGIN = "bob:hunter2-Zq7"
WRONG = "Basic " + base64.b64encode(b"alice:hunter2-Zq7").decode()
TOKEN = "eyJhbGciOiJSUzI1NiJ9xx.eyJpc3MiOiJsYWItaXNzdWVyIn0xx.c2lnbmF0dXJl"
PAGES = 10


def basic(login: str) -> str:
    """Return a login as a client sends it."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def client(proxy: Proxy, login: str) -> Client:
    """Return a client that shows the proxy a login."""
    return Client(ProxyRoute(proxy.address, proxy.ca_file, {"Proxy-Authorization": basic(login)}))


def test_no_page_has_a_secret(lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
    """The operator's logins, clients' own ones, right and wrong, tokens, signatures, the proxy's and the admin's."""
    lab.push(build_image(), "team/pages")
    settings = {
        "AUTH_REGISTRIES": f"basic.lab.test:{USERNAME}:{PASSWORD}",
        "PROXY_AUTH": PROXY_LOGIN,
        "ADMIN_TOKEN": ADMIN_TOKEN,
    }
    proxy = start_proxy(settings)
    asking = client(proxy, PROXY_LOGIN)
    for registry in (lab.basic, lab.token, lab.redirect):
        url = f"https://{registry.name}/v2/team/pages/manifests/latest"
        for authorization in ("", basic(f"{USERNAME}:{PASSWORD}"), WRONG, f"Bearer {TOKEN}", "hunter2-Zq7"):
            asking.get(url, {"Authorization": authorization} if authorization else {})
        answer = asking.get(f"{url}?X-Amz-Signature={TOKEN}")
        asking.get(f"https://{registry.name}/v2/team/pages/blobs/sha256:{'0' * 64}?token={TOKEN}")
        for layer in json.loads(answer.body).get("layers", ()):
            asking.get(f"https://{registry.name}/v2/team/pages/blobs/{layer['digest']}")

    pages = dict(own_pages(proxy))
    assert len(pages) > PAGES
    assert b"operator:alice@basic.lab.test" in b"".join(pages.values())
    assert b"team/pages" in pages["/_proxy/api/v1/requests?after=0"]
    assert {path: found for path, page in pages.items() if (found := secrets_in(page))} == {}
    assert secrets_in(f"{ADMIN_TOKEN}".encode())
