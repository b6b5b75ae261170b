"""What the proxy says of itself while it runs: messages on standard error, from LOG_LEVEL on.

mitmproxy's own messages are among them from WARNING on, and all of them at level DEBUG. The access log is apart: it is
on standard output, whatever the level.
"""

import io
import logging
import os
import sys
from typing import TextIO

from regproxy.settings import LogFormat
from regproxy.stack.log_lines import JsonMessages, TextMessages

OWN_PREFIX = "regproxy"


def is_text(chosen: LogFormat, stream: TextIO) -> bool:
    """Whether lines are for people: so it was chosen, or nothing was and the stream is a terminal."""
    return chosen is LogFormat.TEXT or (chosen is LogFormat.AUTO and stream.isatty())


def has_colours(stream: TextIO) -> bool:
    """Whether lines for people have colours: on a terminal that has them, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Announcements(logging.StreamHandler[TextIO]):
    """Prints messages; the only handler of all loggers, so that each is printed once and in one form."""

    def __init__(self, level: int, formatter: logging.Formatter) -> None:
        super().__init__(sys.stderr)
        self.setLevel(level)
        self.setFormatter(formatter)

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what others say of their daily business: mitmproxy tells of each connection."""
        is_own = record.name.partition(".")[0] == OWN_PREFIX
        return bool(super().filter(record)) and (
            is_own or record.levelno >= logging.WARNING or self.level <= logging.DEBUG
        )


def announce(chosen: LogFormat, level: int) -> None:
    """Print messages from `level` on; a second call changes form and level."""
    # A pipe or a file would keep lines back until there are many.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    text = is_text(chosen, sys.stdout)
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each, Announcements)]:
        root.removeHandler(earlier)
    root.addHandler(Announcements(level, TextMessages(colours=has_colours(sys.stderr)) if text else JsonMessages()))
