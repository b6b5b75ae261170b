"""A token server for registries: `python -m lab.token_server`, a program of its own as in real life.

GET and POST forms of the distribution token protocol, RS256 tokens with an x5c chain. Anonymous clients get `pull` on
all repositories but private/*, and so does bob; alice/secret gets what it asks for. A refused wish is a token without
it, as the protocol says.
"""

import argparse
import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lab.access_log import Request, authorization_scheme
from lab.registry import GUEST, GUEST_PASSWORD, PASSWORD, TOKEN_ISSUER, USERNAME

type _Fields = Mapping[str, list[str]]

_REFRESH_PREFIX = "refresh-"
_PASSWORDS = {USERNAME: PASSWORD, GUEST: GUEST_PASSWORD}


class _RefusedError(Exception):
    """The credentials are wrong."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Makes tokens; pure but for the clock and the token's random id."""

    key: bytes
    certificate: x509.Certificate
    lifetime_s: int

    def answer(self, fields: _Fields, username: str | None) -> dict[str, object]:
        """Return the body of a successful answer."""
        now_s = int(time.time())
        scopes = [scope for field in fields.get("scope", []) for scope in field.split()]
        claims = {
            "iss": TOKEN_ISSUER,
            "sub": username or "",
            "aud": _first(fields, "service"),
            "exp": now_s + self.lifetime_s,
            "nbf": now_s - 10,
            "iat": now_s,
            "jti": uuid.uuid4().hex,
            "access": [granted for scope in scopes if (granted := _grant(scope, username))],
        }
        chain = [base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()]
        token = jwt.encode(claims, self.key, algorithm="RS256", headers={"x5c": chain})
        issued_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
        body: dict[str, object] = {
            "token": token,
            "access_token": token,
            "expires_in": self.lifetime_s,
            "issued_at": issued_at,
        }
        if username and (_first(fields, "offline_token") == "true" or _first(fields, "access_type") == "offline"):
            body["refresh_token"] = _REFRESH_PREFIX + username
        return body


def _first(fields: _Fields, name: str) -> str:
    return fields.get(name, [""])[0]


def _grant(scope: str, username: str | None) -> dict[str, object] | None:
    """Return the access entry for one `type:name:actions`, None when nothing of it is granted."""
    kind, _, rest = scope.partition(":")
    name, _, wanted = rest.rpartition(":")
    actions = wanted.split(",")
    if username in (None, GUEST):
        may_pull = kind == "repository" and not name.startswith("private/")
        actions = [action for action in actions if action == "pull" and may_pull]
    return {"type": kind, "name": name, "actions": actions} if name and actions else None


def _user_of_basic(field: str | None) -> str | None:
    """Return who a GET is from, None for anonymous."""
    if not field:
        return None
    scheme, _, encoded = field.partition(" ")
    username, _, password = base64.b64decode(encoded).decode().partition(":")
    if scheme.lower() != "basic" or _PASSWORDS.get(username) != password:
        raise _RefusedError
    return username


def _user_of_form(fields: _Fields) -> str | None:
    """Return who a POST is from, None for anonymous."""
    match _first(fields, "grant_type"):
        case "password":
            username = _first(fields, "username")
            if _PASSWORDS.get(username) != _first(fields, "password"):
                raise _RefusedError
            return username
        case "refresh_token":
            if _first(fields, "refresh_token") != _REFRESH_PREFIX + USERNAME:
                raise _RefusedError
            return USERNAME
        case _:
            return None


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "TokenHttpServer"

    def do_GET(self) -> None:
        fields = parse_qs(urlsplit(self.path).query)
        try:
            username = _user_of_basic(self.headers["Authorization"])
        except _RefusedError:
            self._refuse()
        else:
            self._send(200, self.server.issuer.answer(fields, username))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fields = parse_qs(body.decode())
        try:
            username = _user_of_form(fields)
        except _RefusedError:
            self._refuse()
        else:
            self._send(200, self.server.issuer.answer(fields, username))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _refuse(self) -> None:
        self._send(401, {"details": "incorrect username or password"})

    def _send(self, status: int, answer: Mapping[str, object]) -> None:
        body = json.dumps(answer).encode()
        sent = b"" if self.command == "HEAD" else body
        # the line is written first: who has the answer finds it in the log
        self.server.record(
            Request(
                method=self.command,
                target=self.path,
                status=status,
                body_bytes=len(sent),
                host=self.headers.get("Host", ""),
                range=self.headers.get("Range", ""),
                authorization=authorization_scheme(self.headers["Authorization"]),
                user_agent=self.headers.get("User-Agent", ""),
            )
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the access log is written by `_send`."""


class TokenHttpServer(ThreadingHTTPServer):
    """HTTPS with the handshake in the connection's own thread."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], issuer: Issuer, context: ssl.SSLContext, log_file: Path) -> None:
        super().__init__(address, _Exchange)
        self.issuer = issuer
        self._context = context
        self._log_file = log_file
        self._log_lock = threading.Lock()

    def finish_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Answer one connection."""
        if isinstance(request, tuple):
            raise TypeError("a stream server gets sockets")
        super().finish_request(self._context.wrap_socket(request, server_side=True), client_address)

    def record(self, request: Request) -> None:
        """Append a line to the access log."""
        with self._log_lock, self._log_file.open("a") as log:
            log.write(request.to_json() + "\n")


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--certificate", required=True, type=Path)
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--token-certificate", required=True, type=Path)
    parser.add_argument("--token-key", required=True, type=Path)
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--lifetime", required=True, type=int, help="seconds a token is good for")
    chosen = parser.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chosen.certificate, chosen.key)
    issuer = Issuer(
        key=chosen.token_key.read_bytes(),
        certificate=x509.load_pem_x509_certificate(chosen.token_certificate.read_bytes()),
        lifetime_s=chosen.lifetime,
    )
    TokenHttpServer((chosen.host, chosen.port), issuer, context, chosen.log).serve_forever()


if __name__ == "__main__":
    main()
