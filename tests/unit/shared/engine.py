"""An engine on loopback that answers as a test wants it to, for what a real one does only in trouble."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from regproxy.policy.bucket_address import BucketAddress
from regproxy.shared.bucket import Bucket

NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code></Error>"
PAGE = b"404 page not found\n"
"""What a server says that is no S3 engine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body."""

    status: int
    body: bytes = b""


@dataclass
class Engine:
    """What it answers to each method, and what it was asked."""

    origin: str
    answers: dict[str, Answer] = field(default_factory=dict)
    first: list[Answer] = field(default_factory=list)
    """Before any of those."""
    asked: list[str] = field(default_factory=list)

    def bucket(self) -> Bucket:
        """Return a client for it."""
        return Bucket.open(BucketAddress("bucket", "prefix", self.origin, "us-east-1"), None)

    def answer(self, method: str) -> Answer:
        """Return what the next request gets."""
        self.asked.append(method)
        return self.first.pop(0) if self.first else self.answers.get(method, Answer(404, NO_SUCH_KEY))


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Start it; without words of a test it is empty and takes nothing."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = engine.answer(self.command)
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 20:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - the names are the base class's

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        engine = Engine(f"http://127.0.0.1:{server.server_address[1]}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()
