"""An upstream that does what a test tells it: slow, cut, wrong, stalled, without ranges, with any status.

It runs in a thread of the test's process, so a test can change replies, open gates and read the log without waiting.
Every request is in the log when its head has arrived, also those that never get an answer.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from lab.access_log import AccessLog, Request, authorization_scheme
from lab.addresses import Address
from lab.image import Image
from lab.misbehaviour import Script
from lab.pki import Pki
from lab.tls_server import Head, TlsServer, Writer

_PIECE_BYTES = 64 * 1024


class Gate:
    """Holds a body until a test opens it. Replies that share a gate are held together."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether bodies may pass."""
        return self._opened.is_set()

    def open(self) -> None:
        """Let every body held here, now and later, go on."""
        self._opened.set()


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request is answered. Without options: 200 with the body, ranges honoured, HEAD without the body."""

    body: bytes | Path = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None
    """Quoted or weak, as it is sent; a Range with an If-Range that differs from it gets the whole body."""
    ranges: bool = True
    """False: Range is ignored, the answer is always the whole body."""
    rate_bytes_per_s: int | None = None
    cut_after_bytes: int | None = None
    """The connection is cut when so many bytes of this answer's body have been sent."""
    hold_after_bytes: int | None = None
    """The body stops there until `gate` is opened, forever when there is none."""
    gate: Gate | None = None
    announce_bytes: int | None = None
    """Content-Length when it must be a lie."""
    chunked: bool = False
    """No Content-Length."""

    @property
    def size_bytes(self) -> int:
        """Size of the body."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the body from `start` to before `stop`."""
        if isinstance(self.body, bytes):
            for position in range(start, stop, _PIECE_BYTES):
                yield self.body[position : min(position + _PIECE_BYTES, stop)]
            return
        with self.body.open("rb") as source:
            source.seek(start)
            for position in range(start, stop, _PIECE_BYTES):
                yield source.read(min(_PIECE_BYTES, stop - position))


_NOT_FOUND = Reply(b"nothing here\n", 404)


class Origin:
    """One scripted TLS server; `start` after `stop` listens on the same address with the same script and log."""

    def __init__(self, name: str, address: Address, pki: Pki) -> None:
        self.name = name
        self.address = address
        self._lock = threading.Lock()
        self._script: dict[str, list[Reply | Script]] = {}
        self._requests: list[Request] = []
        self.heads: list[Mapping[str, str]] = []
        """All fields of each request, names in lower case, in the order of the log."""
        self._server = TlsServer(address, pki, self._answer)
        self.log = AccessLog(self._recorded)
        """Requests at their arrival; `status` and `body_bytes` change from 0 to what was sent."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._server.start()

    def stop(self) -> None:
        """Cut every connection and refuse new ones."""
        self._server.stop()

    def serve(self, path: str, *replies: Reply | Script) -> None:
        """Answer requests of `path` (without query) by these replies in turn; the last one stays."""
        if not replies:
            raise ValueError(f"no reply given for {path}")
        with self._lock:
            self._script[path] = list(replies)

    def serve_image(self, repository: str, tag: str, image: Image, blob_reply: Reply | None = None) -> None:
        """Be a registry with this image; `blob_reply` gives the behaviour of its blobs, their bodies are put in."""
        behaviour = blob_reply or Reply()
        self.serve("/v2/", Reply(b"{}", headers={"Content-Type": "application/json"}))
        for digest, media_type in image.manifests.items():
            fields = {"Content-Type": media_type, "Docker-Content-Digest": digest}
            manifest = Reply(image.read(digest), headers=fields)
            self.serve(f"/v2/{repository}/manifests/{digest}", manifest)
            if digest == image.digest:
                self.serve(f"/v2/{repository}/manifests/{tag}", manifest)
        for digest in image.blobs:
            fields = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
            headers = {**fields, **behaviour.headers}
            self.serve(f"/v2/{repository}/blobs/{digest}", replace(behaviour, body=image.file(digest), headers=headers))

    def _recorded(self) -> list[Request]:
        with self._lock:
            return list(self._requests)

    def _next_reply(self, head: Head) -> tuple[Reply | Script, int]:
        """Record a request and return its reply and its number in the log."""
        request = Request(
            method=head.method,
            target=head.target,
            status=0,
            body_bytes=0,
            host=head.fields.get("host", ""),
            range=head.fields.get("range", ""),
            authorization=authorization_scheme(head.fields.get("authorization")),
            user_agent=head.fields.get("user-agent", ""),
        )
        with self._lock:
            self._requests.append(request)
            self.heads.append(head.fields)
            replies = self._script.get(request.path, [_NOT_FOUND])
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
            return reply, len(self._requests) - 1

    def _update(self, number: int, status: int, body_bytes: int) -> None:
        with self._lock:
            self._requests[number] = replace(self._requests[number], status=status, body_bytes=body_bytes)

    def _answer(self, head: Head, writer: Writer) -> bool:
        """Answer one request; return whether the connection may stay open."""
        reply, number = self._next_reply(head)
        if isinstance(reply, Script):
            return reply.play(head, writer)
        status, start, stop, fields = _resolve(reply, head.fields)
        self._update(number, status, 0)
        writer.send_head(status, fields)
        if head.method == "HEAD" or status in {204, 304}:
            return True
        sent_bytes = 0
        for piece in reply.pieces(start, stop):
            for part in _split(piece, sent_bytes, (reply.cut_after_bytes, reply.hold_after_bytes)):
                if sent_bytes == reply.hold_after_bytes:
                    writer.wait_until(lambda: reply.gate is not None and reply.gate.is_open)
                if sent_bytes == reply.cut_after_bytes:
                    return False
                writer.send_body(part, chunked=reply.chunked, rate_bytes_per_s=reply.rate_bytes_per_s)
                sent_bytes += len(part)
                self._update(number, status, sent_bytes)
        if reply.chunked:
            writer.send_last_chunk()
        # a body shorter than announced or cut at its very end leaves the client nothing but the connection's end
        return reply.announce_bytes is None and reply.cut_after_bytes != sent_bytes


def _split(piece: bytes, sent_bytes: int, stops: tuple[int | None, ...]) -> Iterator[bytes]:
    """Yield the parts of a piece, divided where something must happen."""
    offsets = sorted({s - sent_bytes for s in stops if s is not None and 0 < s - sent_bytes < len(piece)})
    for begin, end in zip([0, *offsets], [*offsets, len(piece)], strict=True):
        yield piece[begin:end]


def _resolve(reply: Reply, request: Mapping[str, str]) -> tuple[int, int, int, dict[str, str]]:
    """Return status, start, stop and fields of the answer to a request with these fields."""
    fields = dict(reply.headers)
    size_bytes = reply.size_bytes
    status, start, stop = reply.status, 0, size_bytes
    if reply.etag is not None:
        fields["ETag"] = reply.etag
    if reply.ranges and reply.status == 200:
        fields["Accept-Ranges"] = "bytes"
        if "range" in request and request.get("if-range") in {None, reply.etag}:
            start, stop = _single_range(request["range"], size_bytes)
            if start >= stop:
                fields.update({"Content-Range": f"bytes */{size_bytes}", "Content-Length": "0"})
                return 416, 0, 0, fields
            status = 206
            fields["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    if reply.chunked:
        fields["Transfer-Encoding"] = "chunked"
    else:
        fields["Content-Length"] = str(reply.announce_bytes if reply.announce_bytes is not None else stop - start)
    return status, start, stop, fields


def _single_range(text: str, size_bytes: int) -> tuple[int, int]:
    """Return start and stop of `bytes=a-b`, `bytes=a-` or `bytes=-n`; an empty range when nothing is satisfiable."""
    first, _, last = text.removeprefix("bytes=").partition("-")
    if first:
        return int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    return max(0, size_bytes - int(last)), size_bytes
