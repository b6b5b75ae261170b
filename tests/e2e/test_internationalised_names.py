"""A registry with an internationalised name is a registry, however operator and client write it (RFC 5891)."""

from pathlib import Path

import pytest

from lab.debug_mode import debug_proxy
from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy
from lab.proxy_log import access_log
from lab.raw_http import ask, tunnelled

pytestmark = pytest.mark.e2e

A_LABEL, U_LABEL = "xn--bcher-kva.lab.test", "Bücher.lab.test"


def served_by_us(proxy: Proxy, host: str) -> bool:
    """Whether TLS behind a CONNECT is ended by the proxy, for this name."""
    with tunnelled(proxy.address, f"{host}:443", proxy.ca_file) as connection:
        return ("DNS", A_LABEL) in connection.getpeercert()["subjectAltName"]  # type: ignore[index]


@pytest.mark.parametrize("listed", [A_LABEL, U_LABEL, "*.bücher.example .bücher.lab.test"])
def test_it_is_intercepted_and_cached(
    lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, listed: str
) -> None:
    """A client pulls from it, the second time from the cache; a tunnel would leave no line in the access log."""
    lab.push(build_image(), "names/book")
    mapped = f"{lab.proxy_settings['UPSTREAM_MAPPINGS']} {U_LABEL}={lab.noauth.address}"
    proxy = start_proxy({"REGISTRIES": listed, "UPSTREAM_MAPPINGS": mapped, "VERIFY_SSL_EXCEPT": U_LABEL})
    for number in range(2):
        proxy.skopeo().pull(f"{A_LABEL}/names/book:latest", tmp_path / f"pulled-{number}")

    lines = access_log(proxy, least=10)
    assert {line["host"] for line in lines} == {A_LABEL}
    blobs = [line["upstream_cache_status"] for line in lines if line["request_type"] == "blob-by-digest"]
    assert blobs == ["MISS"] * 3 + ["HIT"] * 3


@pytest.mark.parametrize("host", [A_LABEL, A_LABEL.upper()])
@pytest.mark.parametrize("way", ["front door", "mitmproxy"])
def test_every_way_in_compares_a_labels(lab: Lab, start_proxy: StartProxy, way: str, host: str) -> None:
    """The front door and mitmproxy's own reading of a CONNECT, which decodes the name, come to the same."""
    settings = {"REGISTRIES": A_LABEL}
    proxy = (
        debug_proxy(lab, start_proxy, settings, host_number=92).start() if way == "mitmproxy" else start_proxy(settings)
    )
    assert served_by_us(proxy, host)


def test_a_request_in_absolute_form_is_the_registrys_too(
    lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin
) -> None:
    """A `http://` registry that is asked through the proxy without CONNECT."""
    del lab, start_origin
    proxy = start_proxy({"REGISTRIES": f"http://{U_LABEL}"})
    request = f"DELETE http://{A_LABEL}/v2/a/manifests/b HTTP/1.1\r\nHost: {A_LABEL}\r\nConnection: close\r\n\r\n"
    assert b" 405 " in ask(proxy.address, request.encode()).split(b"\r\n")[0]
