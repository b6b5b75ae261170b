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
        case aiohttp.ServerDisconnectedError():
            text, passing = "it closed the connection without an answer", True
        case aiohttp.ClientResponseError():
            text, passing = _fault_of_head(cause), True
        case OSError():
            text, passing = _words(cause), True
        case _:
            text, passing = type(cause).__name__, True
    return UpstreamUnavailable(f"{url.origin} cannot be reached: {text}", ConnectionFailed(), passing=passing)


def broken_off(url: Url, error: Exception) -> UpstreamUnavailable:
    """Return what an exception means that comes in the body of an answer."""
    if isinstance(error, TimeoutError):
        return unavailable(url, error)
    return UpstreamUnavailable(f"{url.origin} broke off its answer", ConnectionFailed())


def _fault_of_head(error: aiohttp.ClientResponseError) -> str:
    """Say what is wrong with a head; not a word of it, for it may hold secrets."""
    # The words of aiohttp's parser; it has no class of errors for this that survives.
    if "Got more than" in error.message or "Too many headers" in error.message:
        return "its answer has more or longer header fields than are read"
    return "its answer is not valid HTTP"


def _words(error: OSError) -> str:
    """Return the system's words: asyncio's name the address instead, OpenSSL's numbers are not the system's."""
    if isinstance(error, ssl.SSLError) or error.errno is None or error.errno <= 0:
        return error.strerror or str(error)
    return os.strerror(error.errno)
