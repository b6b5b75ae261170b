"""What a line of the log looks like: JSON for programs, words and colours for people at a terminal.

Two kinds of lines, one for each request (`access_log`) and one for each message (`announcements`). Both forms say the
same. What clients and registries chose, a name or an error, cannot move the cursor or end a line: JSON escapes it, and
so does `escaped`.
"""

import json
import logging
import select
import time
from collections.abc import Callable, Mapping

_encode = json.JSONEncoder(separators=(",", ":")).encode

LONGEST_LINE_BYTES = select.PIPE_BUF
"""Of a line with its end. Of what is no longer a pipe takes all at once, whoever else writes to it (pipe(7))."""

_RESET = "\x1b[0m"
_RED, _GREEN, _YELLOW, _MAGENTA, _CYAN, _DIM = (f"\x1b[{code}m" for code in (31, 32, 33, 35, 36, 2))

_STATUS_COLOURS: Mapping[str, str] = {
    "HIT": _GREEN,
    "REVALIDATED": _GREEN,
    "MISS": _YELLOW,
    "EXPIRED": _YELLOW,
    "STALE": _MAGENTA,
    "BYPASS": _CYAN,
}


def decoded(text: str) -> str:
    """Return what a client sent without the marks of bytes that are no UTF-8, which are no text for readers of JSON."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def escaped(text: str) -> str:
    """Return the text with everything that is not to be seen written out, as Python does: controls, bidi marks."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def bounded(facts: Mapping[str, str], line_of: Callable[[Mapping[str, str]], str]) -> str:
    """Return the line of a request, without its end. Where it would be too long, its longest values end in "..."."""
    line, most = line_of(facts), LONGEST_LINE_BYTES
    while len(line.encode()) >= LONGEST_LINE_BYTES:
        most //= 2
        line = line_of({key: value if len(value) <= most else f"{value[:most]}..." for key, value in facts.items()})
    return line


def access_text(facts: Mapping[str, str], *, colours: bool) -> str:
    """Return the line of a request for people, without its date; `facts` are those of the JSON line."""
    said = {key: escaped(value) for key, value in facts.items()}

    def paint(text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if colours and text and colour else text

    cache, status = said["upstream_cache_status"], said["status"] or "---"
    parts = [
        paint(_clock(said["access_time"]), _DIM),
        paint(f"{cache or '-':<11}", _STATUS_COLOURS.get(cache, _DIM)),
        paint(status, _colour_of(status)),
        f"{said['method']:<4}",
        f"{said['host']}{said['uri']}",
        paint(f"{said['request_type']} {said['image']}".rstrip(), _DIM),
        f"{said['bytes_sent']} B in {said['duration_s']} s",
        f"to {said['client_ip']}",
        paint(f"({said['user_agent']})" if said["user_agent"] else "", _DIM),
        "from the bucket" if said["source"] else "",
        _of_upstream(said),
        f"login {said['credential']}" if said["credential"] else "",
        paint(f"error: {said['error']}" if said["error"] else "", _RED),
    ]
    return " ".join(part for part in parts if part)


def _clock(access_time: str) -> str:
    """Return the time of day of nginx's `$time_local`."""
    return access_time.partition(":")[2].partition(" ")[0]


def _colour_of(status: str) -> str:
    if status.startswith(("2", "3")):
        return ""
    return _YELLOW if status.startswith("4") else _RED


def _of_upstream(said: Mapping[str, str]) -> str:
    """Return what was asked of the upstream; of a hit, nothing but its name is known."""
    if not said["upstream"]:
        return f"of {said['proxy_host']}" if said["proxy_host"] not in {"", said["host"]} else ""
    return (
        f"from {said['proxy_host']} ({said['upstream']})"
        f" {said['bytes_upstream'] or '-'} B in {said['upstream_response_time'] or '-'} s"
    )


class JsonMessages(logging.Formatter):
    """One JSON object a message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _encode(fields)


class TextMessages(logging.Formatter):
    """One line a message, and the lines of its traceback, for people."""

    _COLOURS: Mapping[int, str] = {logging.WARNING: _YELLOW, logging.ERROR: _RED, logging.CRITICAL: _RED}

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment, level = time.strftime("%H:%M:%S", time.gmtime(record.created)), record.levelname.lower()
        if self._colours:
            moment, level = f"{_DIM}{moment}{_RESET}", f"{self._COLOURS.get(record.levelno, _DIM)}{level}{_RESET}"
        lines = [f"{moment} {level}: {escaped(record.getMessage())}"]
        if record.exc_info:
            lines += [f"  {escaped(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)
