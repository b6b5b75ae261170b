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
    text, passing = _not_asked(cause) or _not_reached(cause) or _not_answered(cause)
    return UpstreamUnavailable(f"{url.origin} cannot be reached: {text}", ConnectionFailed(), passing=passing)


type _Told = tuple[str, bool]
"""What went wrong, and whether it may be gone in seconds."""


def _not_asked(cause: BaseException) -> _Told | None:
    """Say why nothing was sent, for reasons that somebody has to remove."""
    match cause:
        case AddressForbiddenError():
            return f"{cause}; list it in TRUSTED_HOSTS if that is meant", False
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"its certificate is not trusted ({cause.certificate_error}); add its CA with UPSTREAM_CA_FILE",
                False,
            )
        case aiohttp.InvalidURL():
            return "the URL is not valid", False
        case _:
            return None


def _not_reached(cause: BaseException) -> _Told | None:
    """Say why no connection came about."""
    match cause:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {cause.status}", cause.status not in (403, 407)
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy cannot be reached: {_words(cause.os_error)}", True
        case aiohttp.ClientConnectorError():
            return _words(cause.os_error), True
        case _:
            return None


def _not_answered(cause: BaseException) -> _Told:
    """Say what a connection brought instead of an answer."""
    match cause:
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer", True
        case aiohttp.ClientResponseError():
            return _fault_of_head(cause), True
        case OSError():
            return _words(cause), True
        case _:
            return type(cause).__name__, True


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
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)
