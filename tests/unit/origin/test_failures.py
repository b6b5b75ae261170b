"""What is said of an upstream that gave no answer."""

import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from regproxy.origin.failures import unavailable
from regproxy.policy.redirects import Url

KEY = ConnectionKey("quay.io", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('192.0.2.1', 443)"), "Connection refused"),
        (ConnectionResetError(), "ConnectionResetError"),
        (ssl.SSLError(1, "wrong version number"), "wrong version number"),
    ],
)
def test_there_is_always_a_reason(error: OSError, words: str) -> None:
    """Also for errors without a word of their own, as of a connection that ends inside its TLS handshake."""
    said = str(unavailable(Url.parse("https://quay.io/v2/"), aiohttp.ClientConnectorError(KEY, error)))
    assert said == f"https://quay.io cannot be reached: {words}"
