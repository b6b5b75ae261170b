"""What a scripted origin does wrong: a script is a few steps, played one after the other on the connection.

`Script(content, head(content_length="5"), body())` is an answer that is longer than it says. After the last step the
connection ends without a TLS close alert, as when a server dies. Steps that send a body send none to a HEAD.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from lab.tls_server import Head, Writer

_PIECE = b"\x00" * 65_536


@dataclass(frozen=True, slots=True)
class Content:
    """What an honest origin would send."""

    body: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Playing:
    """One request that is being answered."""

    content: Content
    head: Head
    writer: Writer

    def send_body(self, text: bytes) -> None:
        """Send a part of a body, unless the request was a HEAD."""
        if self.head.method != "HEAD":
            self.writer.send_raw(text)


type Step = Callable[[Playing], None]


class Script:
    """An answer made of steps, instead of a `Reply`."""

    def __init__(self, content: Content, *steps: Step) -> None:
        self._content = content
        self._steps = steps

    def play(self, head: Head, writer: Writer) -> bool:
        """Take the steps; the connection never stays open."""
        for step in self._steps:
            step(Playing(self._content, head, writer))
        return False


def head(status: int = 200, *, without: str = "", **fields: str) -> Step:
    """Send a head: an honest one but for these fields (`content_type` is Content-Type), and without others.

    `{size}`, `{half}` and `{digest}` stand for the content's; a field may be given several lines.
    """

    def step(playing: Playing) -> None:
        content = playing.content
        chosen = {
            "content-type": content.media_type,
            "docker-content-digest": content.digest,
            "content-length": "{size}",
            "connection": "close",
        }
        chosen |= {name.replace("_", "-"): text for name, text in fields.items()}
        size = len(content.body)
        lines = [
            f"{name}: {line.format(size=size, half=size // 2, more=size + 10, digest=content.digest)}"
            for name, text in chosen.items()
            if name not in without.split()
            for line in text.split("\n")
        ]
        phrase = HTTPStatus(status).phrase
        playing.writer.send_raw("\r\n".join([f"HTTP/1.1 {status} {phrase}", *lines, "", ""]).encode("latin-1"))

    return step


def body(part: float = 1.0) -> Step:
    """Send the first part of the content, all of it by default."""
    return lambda playing: playing.send_body(playing.content.body[: int(len(playing.content.body) * part)])


def other_body() -> Step:
    """Send something else, of the same length."""
    return lambda playing: playing.send_body(bytes(byte ^ 1 for byte in playing.content.body))


def tail(start: int) -> Step:
    """Send the content from an offset on."""
    return lambda playing: playing.send_body(playing.content.body[start:])


def text(sent: bytes) -> Step:
    """Send these bytes, head or body."""
    return lambda playing: playing.writer.send_raw(sent)


def stall() -> Step:
    """Say nothing more until the origin is stopped."""
    return lambda playing: playing.writer.wait_until(lambda: False)


def pause(seconds: float) -> Step:
    """Let what was sent be read before the next step."""
    return lambda playing: playing.writer.pause(seconds)


def reset() -> Step:
    """End with a TCP reset."""
    return lambda playing: playing.writer.reset()


def repeated(sent: bytes, times: int | None = None, *, pause_s: float = 0.0) -> Step:
    """Send the same bytes again and again, without end if no number is given: until the proxy has hung up."""

    def step(playing: Playing) -> None:
        for _ in range(times) if times is not None else itertools.count():
            playing.writer.send_raw(sent)
            if pause_s:
                playing.writer.pause(pause_s)

    return step


def endless_chunks() -> Step:
    """Send a chunked body that has no end."""
    return repeated(b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
