"""The client side of the admin API."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

PREFIX = "/_proxy/api/v1"
TIMEOUT_S = 120.0
"""The longest look at a large cache, and the longest wait of `tail`."""


class ApiError(Exception):
    """Nothing came of it; the text says what and what to do about it."""

    status: int | None = None
    """Of the proxy's answer, if it answered."""


def default_url(environ: Mapping[str, str] = os.environ) -> str:
    """Return where the proxy is if nobody says: on this machine, at its own port."""
    return environ.get("REGISTRY_PROXY_URL") or f"http://127.0.0.1:{environ.get('LISTEN_PORT') or '3128'}"


def find_token(environ: Mapping[str, str] = os.environ) -> str:
    """Return the token of ADMIN_TOKEN, or of the file that ADMIN_TOKEN_FILE names; empty for none. Raises ApiError."""
    name = environ.get("ADMIN_TOKEN_FILE")
    if environ.get("ADMIN_TOKEN") or not name:
        return environ.get("ADMIN_TOKEN", "").strip()
    try:
        return Path(name).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ApiError(f"ADMIN_TOKEN_FILE={name}: {error.strerror}") from None
    except ValueError:
        raise ApiError(f"ADMIN_TOKEN_FILE={name}: not a file of ASCII text") from None


class Api:
    """One proxy. Every method raises ApiError."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"{url!r} is no URL of a proxy: http://host:3128")
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._token = token
        # The environment's HTTP_PROXY is most likely this very proxy, which does not lead to itself.
        self._opener = build_opener(ProxyHandler({}))

    def ask(self, method: str, path: str, body: bytes | None = None, **query: str | None) -> dict[str, Any]:
        """Return an answer; parameters that are None are left out."""
        with self._asked(method, path, body, query) as response:
            return _parsed(response.read(), self._url)

    @contextmanager
    def download(self, path: str, **query: str | None) -> Iterator[BinaryIO]:
        """Yield what is stored, to be read piece by piece."""
        with self._asked("GET", path, None, query) as response:
            yield response

    @contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | None, query: Mapping[str, str | None]
    ) -> Iterator[HTTPResponse]:
        known = {name: value for name, value in query.items() if value is not None}
        url = f"{self._url}{PREFIX}{path}" + (f"?{urlencode(known)}" if known else "")
        request = Request(url, body, method=method)  # noqa: S310 - the scheme was looked at
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                yield response
        except HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ApiError(
                f"no proxy answers at {self._url} ({reason}): start it, or set REGISTRY_PROXY_URL or --url"
            ) from None

    def _refused(self, error: HTTPError) -> ApiError:
        try:
            reason = str(json.loads(error.read())["error"])
        except (ValueError, KeyError, TypeError, OSError):
            reason = "that is no registry-proxy, or an older one"
        remedy = ": set ADMIN_TOKEN or ADMIN_TOKEN_FILE to the proxy's" if error.code == 401 else ""
        refused = ApiError(f"{self._url} answered {error.code}: {reason}{remedy}")
        refused.status = error.code
        return refused


def _parsed(body: bytes, url: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ApiError(f"{url} is no registry-proxy, or an older one: its answer is not JSON")
    return parsed
