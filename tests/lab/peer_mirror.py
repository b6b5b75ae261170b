"""What answers on a node's port when a P2P mirror such as Spegel runs there: what peers have, and 404 for the rest."""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from lab.addresses import Address

_NOT_FOUND = b'{"errors":[{"code":"NOT_FOUND","message":"no peer has it"}]}'


class PeerMirror:
    """Serves contents by digest as a context manager, and remembers who asked for what."""

    def __init__(self, address: Address, contents: Mapping[str, bytes]) -> None:
        self._lock = threading.Lock()
        self._answered: list[tuple[str, int]] = []
        self._contents = dict(contents)
        self._server = ThreadingHTTPServer(address, self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def answered(self) -> list[tuple[str, int]]:
        """The last part of each path that was asked for, a tag or a digest, and the status of the answer."""
        with self._lock:
            return list(self._answered)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                wanted = self.path.partition("?")[0].rpartition("/")[2]
                content = mirror._contents.get(wanted)
                status, body = (404, _NOT_FOUND) if content is None else (200, content)
                with mirror._lock:
                    mirror._answered.append((wanted, status))
                self.send_response(status)
                kind = "application/json" if content is None else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing: what was asked is remembered."""

        return Handler
