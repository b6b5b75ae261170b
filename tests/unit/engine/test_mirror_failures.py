"""A registry that cannot be reached, as a client of the mirror door hears of it."""

import json

from mitmproxy import options
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook

from regproxy.engine.http_layer import Door, RegistryHttpLayer, enter_by
from unit.engine.layer_driver import LayerDriver, new_context


def come_by_the_mirror_door(hook: commands.StartHook) -> None:
    """Do as `MirrorDoor` does."""
    if isinstance(hook, HttpRequestHeadersHook):
        request = hook.flow.request
        request.scheme, request.host, request.port = "https", "quay.io", 443
        enter_by(request, Door.MIRROR)


async def test_a_registry_that_cannot_be_reached_is_an_oci_error(opts: options.Options) -> None:
    """What passes through mitmproxy, as a blob for which the cache has no room, ended as a page of HTML here."""
    driver = LayerDriver(RegistryHttpLayer(new_context(opts), HTTPMode.regular), come_by_the_mirror_door)
    driver.failures[("quay.io", 443)] = "nobody listens"
    driver.receive(b"GET /v2/quay.io/a/blobs/sha256:0 HTTP/1.1\r\nHost: proxy.lan:3128\r\n\r\n")

    head, _, body = driver.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body) == {"errors": [{"code": "UNAVAILABLE", "message": "nobody listens"}]}
    assert driver.closed
