"""A proxy in debug mode, and its web interface as a script asks it."""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from lab.addresses import Address
from lab.fixtures import StartProxy
from lab.http_client import Response
from lab.lab import Lab
from lab.proxy import Proxy

WEB_PORT = 8081
HUB_WEB_PORT = 8082
DEBUG_PASSWORD = "correct horse battery staple"
OWN_PAGE = {  # the interface compares field and cookie
    "Content-Type": "application/json",
    "Cookie": f"_mitmproxy_xsrf={'00' * 16}",
    "X-XSRFToken": "00" * 16,
}


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
    proxy.settings.setdefault("DEBUG_PASSWORD", DEBUG_PASSWORD)
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
    password: str | None = DEBUG_PASSWORD,
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
