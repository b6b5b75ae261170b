"""What the proxy says of itself while it runs: lines of level INFO and below, on standard error.

Warnings and errors are printed by mitmproxy. Its own INFO lines (a connect and a disconnect for each connection) stay
off.
"""

import io
import logging
import sys


def announce(*, debug: bool) -> None:
    """Print the package's INFO lines, and its DEBUG lines if `debug`. A second call changes the level only."""
    # mitmproxy prints warnings without a flush: into a pipe or a file they would wait for the next access log line.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    logger = logging.getLogger("regproxy")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(lambda record: record.levelno < logging.WARNING)
        handler.setFormatter(logging.Formatter("registry-proxy: %(message)s"))
        logger.addHandler(handler)
    for each in logger.handlers:
        each.setLevel(logging.DEBUG if debug else logging.INFO)
