"""The proxy's own commands in mitmweb's prompt, and nobody else's."""

import json
from typing import Any

import pytest

from e2e.test_admin import REGISTRY, pull, until
from lab.debug_mode import OWN_PAGE, ask_web, debug_proxy
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e


def command(proxy: Proxy, name: str, *arguments: str) -> Any:
    """Return what mitmweb's prompt gets for a command."""
    body = json.dumps({"arguments": arguments})
    answer = ask_web(proxy, f"/commands/{name}", method="POST", headers=OWN_PAGE, body=body)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_the_cache_is_steered_from_mitmwebs_prompt(lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
    """A purge is done and its answer is in the event log; without the password, and on the proxy's port, it is not."""
    lab.push(build_image(), "debug/steered")
    proxy = debug_proxy(lab, start_proxy).start()
    pull(proxy, "debug/steered")
    image = f"{REGISTRY}/debug/steered:latest"
    nobody = ask_web(proxy, "/commands/registry.purge", method="POST", password=None, headers=OWN_PAGE, body="{}")
    assert nobody.status == 403
    assert proxy.request("POST", "/commands/registry.purge", OWN_PAGE, b"{}").status == 405
    assert "UPPER" in command(proxy, "registry.purge", "UPPER/case:x")["error"]

    assert "event log" in command(proxy, "registry.purge", image)["value"]
    events = until(
        lambda: [str(event["message"]) for event in json.loads(ask_web(proxy, "/events").body)],
        lambda seen: any(f"purge {image}: {{" in message for message in seen),
    )
    (told,) = [message for message in events if f"purge {image}: {{" in message]
    assert f'"images": ["{image}"]' in told
    assert pull(proxy, "debug/steered")[-1].header("X-Docker-Registry-Proxy-Cache-Upstream-Status") == "MISS"
