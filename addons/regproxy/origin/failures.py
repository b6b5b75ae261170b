"""Why an upstream gave no answer, in one sentence."""

import os
import ssl

import aiohttp

from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.resolver import AddressForbiddenError
from regproxy.policy.freshness import ConnectionFailed, TimedOut
from regproxy.policy.redirects import Url


def unavailable(url: Url, error: Exception) -> UpstreamUnavailable:
    """Return what an exception of aiohttp or the system means; the text has no query, for signatures are secrets."""
    if isinstance(error, TimeoutError):
        return UpstreamUnavailable(f"{url.origin} did not answer in time", TimedOut())
    cause = error.__cause__ if isinstance(error.__cause__, AddressForbiddenError) else error
    passing = False
    match cause:
        case AddressForbiddenError():
            text = f"{cause}; list it in TRUSTED_HOSTS if that is meant"
        case aiohttp.ClientConnectorCertificateError():
            text = f"its certificate is not trusted ({cause.certificate_error}); add its CA with UPSTREAM_CA_FILE"
        case aiohttp.InvalidURL():
            text = "the URL is not valid"
        case aiohttp.ClientHttpProxyError():
            text, passing = f"the proxy answered {cause.status}", cause.status not in (403, 407)
        case aiohttp.ClientProxyConnectionError():
            text, passing = f"the proxy cannot be reached: {_words(cause.os_error)}", True
        case aiohttp.ClientConnectorError():
            text, passing = _words(cause.os_error), True
        case _:
            text, passing = type(cause).__name__, True
    return UpstreamUnavailable(f"{url.origin} cannot be reached: {text}", ConnectionFailed(), passing=passing)


def _words(error: OSError) -> str:
    """Return the system's words: asyncio's name the address instead, OpenSSL's numbers are not the system's."""
    if isinstance(error, ssl.SSLError) or error.errno is None or error.errno <= 0:
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)
